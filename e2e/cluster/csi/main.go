// A CSI driver whose volumes are disk images with an XFS file system, which any node of the cluster can attach: what a
// cloud's block storage is, small. Sizes are real, so volumes can be full, and grow; a snapshot is a copy of the image,
// taken while the file system holds still. Not ext4: without CAP_SYS_RESOURCE it does not grow while it is mounted.
//
// It runs once in the control plane, for the sidecars (create, attach, expand, snapshot), and once on each node, for the
// kubelet (mount). Both see the images at the same path.
package main

import (
	"context"
	"flag"
	"log"
	"net"
	"os"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

const driver = "disk.csi.kcluster"

type identity struct {
	csi.UnimplementedIdentityServer
}

func (identity) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: driver, VendorVersion: "1"}, nil
}

func (identity) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	controller := &csi.PluginCapability_Service{Type: csi.PluginCapability_Service_CONTROLLER_SERVICE}
	online := &csi.PluginCapability_VolumeExpansion{Type: csi.PluginCapability_VolumeExpansion_ONLINE}
	return &csi.GetPluginCapabilitiesResponse{Capabilities: []*csi.PluginCapability{
		{Type: &csi.PluginCapability_Service_{Service: controller}},
		{Type: &csi.PluginCapability_VolumeExpansion_{VolumeExpansion: online}},
	}}, nil
}

func (identity) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{}, nil
}

// What the kubelet asks when it finds the registration socket.
type registrar struct {
	registration.UnimplementedRegistrationServer
	endpoint string
}

func (r registrar) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type: registration.CSIPlugin, Name: driver, Endpoint: r.endpoint, SupportedVersions: []string{"1.0.0"},
	}, nil
}

func (r registrar) NotifyRegistrationStatus(_ context.Context, status *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	log.Printf("registered with the kubelet: %v %s", status.PluginRegistered, status.Error)
	return &registration.RegistrationStatusResponse{}, nil
}

func logged(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	answer, err := handler(ctx, request)
	if err != nil {
		log.Printf("%s: %v", info.FullMethod, err)
	}
	return answer, err
}

// Listens on a Unix socket; one of an earlier process is in the way.
func serve(socket string, register func(*grpc.Server)) {
	os.Remove(socket)
	listener, err := net.Listen("unix", socket)
	if err != nil {
		log.Fatalf("cannot listen: %v", err)
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(logged))
	register(server)
	log.Fatal(server.Serve(listener))
}

func main() {
	log.SetFlags(log.LstdFlags | log.LUTC)
	folder := flag.String("folder", "", "where the images are")
	endpoint := flag.String("endpoint", "", "the socket to listen on")
	name := flag.String("node", "", "the name of this node; none: the controller")
	kubelet := flag.String("registration", "", "on a node: the socket that the kubelet finds")
	nodes := flag.String("nodes", "", "in the controller: the nodes' sockets, with %s for the name")
	flag.Parse()
	images := &disks{folder: *folder}
	if *name == "" {
		serve(*endpoint, func(server *grpc.Server) {
			csi.RegisterIdentityServer(server, identity{})
			csi.RegisterControllerServer(server, &controller{disks: images, nodes: *nodes, busy: map[string]bool{}})
		})
	}
	thaw()
	go serve(*kubelet, func(server *grpc.Server) {
		registration.RegisterRegistrationServer(server, registrar{endpoint: *endpoint})
	})
	serve(*endpoint, func(server *grpc.Server) {
		csi.RegisterIdentityServer(server, identity{})
		csi.RegisterNodeServer(server, &node{disks: images, name: *name})
		csi.RegisterControllerServer(server, &copier{disks: images})
	})
}
