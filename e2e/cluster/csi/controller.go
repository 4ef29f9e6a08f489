// What the sidecars ask for, once for the cluster.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

const (
	mega = 1 << 20
	// XFS is not made smaller than 300 MB.
	least = 320 * mega
	usual = 1 << 30
)

type controller struct {
	csi.UnimplementedControllerServer
	disks *disks
	nodes string
	lock  sync.Mutex
	busy  map[string]bool
}

// One thing at a time with each volume and snapshot: requests come again before the first is answered.
func (c *controller) hold(ids ...string) (release func(), err error) {
	c.lock.Lock()
	defer c.lock.Unlock()
	ids = slices.DeleteFunc(ids, func(id string) bool { return id == "" })
	for _, id := range ids {
		if c.busy[id] {
			return nil, status.Errorf(codes.Aborted, "another request for %s is not done yet", id)
		}
	}
	set := func(busy bool) {
		for _, id := range ids {
			if busy {
				c.busy[id] = true
			} else {
				delete(c.busy, id)
			}
		}
	}
	set(true)
	return func() {
		c.lock.Lock()
		defer c.lock.Unlock()
		set(false)
	}, nil
}

func (c *controller) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	answer := &csi.ControllerGetCapabilitiesResponse{}
	for _, one := range []csi.ControllerServiceCapability_RPC_Type{
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
		csi.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME,
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT,
		csi.ControllerServiceCapability_RPC_CLONE_VOLUME,
		csi.ControllerServiceCapability_RPC_EXPAND_VOLUME,
		csi.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	} {
		rpc := &csi.ControllerServiceCapability_RPC{Type: one}
		answer.Capabilities = append(answer.Capabilities, &csi.ControllerServiceCapability{Type: &csi.ControllerServiceCapability_Rpc{Rpc: rpc}})
	}
	return answer, nil
}

// Why a volume cannot be used like that, if it cannot.
func unusable(wanted []*csi.VolumeCapability) string {
	for _, one := range wanted {
		switch one.GetAccessMode().GetMode() {
		case csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER,
			csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY,
			csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER,
			csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER:
		default:
			return "a volume of " + driver + " is on one node at a time: ReadWriteOnce or ReadWriteOncePod"
		}
		if one.GetBlock() != nil {
			return driver + " has no raw block volumes, only file systems"
		}
		if kind := one.GetMount().GetFsType(); kind != "" && kind != "xfs" {
			return driver + " has XFS only, not " + kind
		}
	}
	return ""
}

// A size within limits, in whole megabytes; `fallback` when none is asked for.
func size(limits *csi.CapacityRange, fallback int64) (int64, error) {
	bytes := limits.GetRequiredBytes()
	if bytes == 0 {
		bytes = fallback
	}
	bytes = (max(bytes, least) + mega - 1) / mega * mega
	if most := limits.GetLimitBytes(); most != 0 && bytes > most {
		return 0, status.Errorf(codes.OutOfRange, "the smallest that fits has %d bytes, and at most %d are wanted", bytes, most)
	}
	return bytes, nil
}

func (c *controller) CreateVolume(_ context.Context, request *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	from := request.GetVolumeContentSource()
	release, err := c.hold(request.GetName(), from.GetVolume().GetVolumeId(), from.GetSnapshot().GetSnapshotId())
	if err != nil {
		return nil, err
	}
	defer release()
	id := request.GetName()
	if err := checked("volume", id); err != nil {
		return nil, err
	}
	if why := unusable(request.GetVolumeCapabilities()); why != "" {
		return nil, status.Error(codes.InvalidArgument, why)
	}
	image := c.disks.image(id)
	answer := &csi.Volume{VolumeId: id, ContentSource: from}
	// It was made, and the answer was lost.
	if old, err := read(image); err != nil || old != nil {
		if err == nil && old.Bytes < request.GetCapacityRange().GetRequiredBytes() {
			err = status.Errorf(codes.AlreadyExists, "volume %s is there, with %d bytes", id, old.Bytes)
		}
		if err == nil {
			answer.CapacityBytes = old.Bytes
		}
		return &csi.CreateVolumeResponse{Volume: answer}, err
	}
	made := &record{Created: time.Now()}
	fill, floor := (func(string) error)(nil), int64(0)
	switch {
	case from.GetSnapshot() != nil:
		made.Source = from.GetSnapshot().GetSnapshotId()
		source := c.disks.snapshot(made.Source)
		old, err := known("snapshot", made.Source, source)
		if err != nil {
			return nil, err
		}
		floor, fill = old.Bytes, func(part string) error { return copied(source, part) }
	case from.GetVolume() != nil:
		made.Source = from.GetVolume().GetVolumeId()
		old, err := known("volume", made.Source, c.disks.image(made.Source))
		if err != nil {
			return nil, err
		}
		floor, fill = old.Bytes, func(part string) error { return c.still(made.Source, old, part) }
	}
	bytes, err := size(request.GetCapacityRange(), usually(floor))
	if err != nil {
		return nil, err
	}
	if bytes < floor {
		return nil, status.Errorf(codes.OutOfRange, "%d bytes are too few for what has %d", bytes, floor)
	}
	if fill == nil {
		fill = formatted(bytes)
	}
	made.Bytes = bytes
	part := image + ".part"
	os.Remove(part)
	if err := c.disks.fill(part, bytes, fill); err != nil {
		return nil, err
	}
	if err := os.Rename(part, image); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	answer.CapacityBytes = bytes
	return &csi.CreateVolumeResponse{Volume: answer}, write(image, made)
}

// The size of a volume of which none is asked for: that of what it is made of.
func usually(source int64) int64 {
	if source != 0 {
		return source
	}
	return usual
}

func (c *controller) DeleteVolume(_ context.Context, request *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	release, err := c.hold(request.GetVolumeId())
	if err != nil {
		return nil, err
	}
	defer release()
	id := request.GetVolumeId()
	if checked("volume", id) != nil {
		// It cannot be there, so it is gone.
		return &csi.DeleteVolumeResponse{}, nil
	}
	old, err := read(c.disks.image(id))
	if err != nil {
		return nil, err
	}
	if old != nil && old.Node != "" {
		return nil, status.Errorf(codes.FailedPrecondition, "volume %s is attached to %s", id, old.Node)
	}
	return &csi.DeleteVolumeResponse{}, remove(c.disks.image(id))
}

func (c *controller) ValidateVolumeCapabilities(_ context.Context, request *csi.ValidateVolumeCapabilitiesRequest) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	if _, err := known("volume", request.GetVolumeId(), c.disks.image(request.GetVolumeId())); err != nil {
		return nil, err
	}
	if why := unusable(request.GetVolumeCapabilities()); why != "" {
		return &csi.ValidateVolumeCapabilitiesResponse{Message: why}, nil
	}
	confirmed := &csi.ValidateVolumeCapabilitiesResponse_Confirmed{VolumeCapabilities: request.GetVolumeCapabilities()}
	return &csi.ValidateVolumeCapabilitiesResponse{Confirmed: confirmed}, nil
}

func (c *controller) ControllerPublishVolume(_ context.Context, request *csi.ControllerPublishVolumeRequest) (*csi.ControllerPublishVolumeResponse, error) {
	release, err := c.hold(request.GetVolumeId())
	if err != nil {
		return nil, err
	}
	defer release()
	image := c.disks.image(request.GetVolumeId())
	volume, err := known("volume", request.GetVolumeId(), image)
	if err != nil {
		return nil, err
	}
	if volume.Node == request.GetNodeId() {
		return &csi.ControllerPublishVolumeResponse{}, nil
	}
	if volume.Node != "" {
		return nil, status.Errorf(codes.FailedPrecondition, "volume %s is attached to %s", request.GetVolumeId(), volume.Node)
	}
	volume.Node = request.GetNodeId()
	return &csi.ControllerPublishVolumeResponse{}, write(image, volume)
}

// A volume is not detached while its file system is mounted, whatever Kubernetes thinks of the node: two nodes that write to
// one file system destroy it.
func (c *controller) ControllerUnpublishVolume(_ context.Context, request *csi.ControllerUnpublishVolumeRequest) (*csi.ControllerUnpublishVolumeResponse, error) {
	release, err := c.hold(request.GetVolumeId())
	if err != nil {
		return nil, err
	}
	defer release()
	id, image := request.GetVolumeId(), c.disks.image(request.GetVolumeId())
	volume, err := known("volume", id, image)
	if status.Code(err) == codes.NotFound {
		return &csi.ControllerUnpublishVolumeResponse{}, nil
	}
	if err != nil {
		return nil, err
	}
	if volume.Node == "" || (request.GetNodeId() != "" && request.GetNodeId() != volume.Node) {
		return &csi.ControllerUnpublishVolumeResponse{}, nil
	}
	if in, err := loops(image); err != nil {
		return nil, err
	} else if len(in) != 0 {
		return nil, status.Errorf(codes.FailedPrecondition, "volume %s is still mounted on %s", id, volume.Node)
	}
	volume.Node = ""
	return &csi.ControllerUnpublishVolumeResponse{}, write(image, volume)
}

func (c *controller) ControllerExpandVolume(_ context.Context, request *csi.ControllerExpandVolumeRequest) (*csi.ControllerExpandVolumeResponse, error) {
	release, err := c.hold(request.GetVolumeId())
	if err != nil {
		return nil, err
	}
	defer release()
	image := c.disks.image(request.GetVolumeId())
	volume, err := known("volume", request.GetVolumeId(), image)
	if err != nil {
		return nil, err
	}
	bytes, err := size(request.GetCapacityRange(), volume.Bytes)
	if err != nil {
		return nil, err
	}
	// It never shrinks.
	if bytes > volume.Bytes {
		if err := os.Truncate(image, bytes); err != nil {
			return nil, status.Errorf(codes.Internal, "%s cannot have %d bytes: %v", image, bytes, err)
		}
		volume.Bytes = bytes
		if err := write(image, volume); err != nil {
			return nil, err
		}
	}
	return &csi.ControllerExpandVolumeResponse{CapacityBytes: volume.Bytes, NodeExpansionRequired: true}, nil
}

func (c *controller) CreateSnapshot(_ context.Context, request *csi.CreateSnapshotRequest) (*csi.CreateSnapshotResponse, error) {
	release, err := c.hold(request.GetName(), request.GetSourceVolumeId())
	if err != nil {
		return nil, err
	}
	defer release()
	id, source := request.GetName(), request.GetSourceVolumeId()
	if err := checked("snapshot", id); err != nil {
		return nil, err
	}
	target := c.disks.snapshot(id)
	made, err := read(target)
	if err != nil {
		return nil, err
	}
	if made != nil && made.Source != source {
		return nil, status.Errorf(codes.AlreadyExists, "snapshot %s is there, of volume %s", id, made.Source)
	}
	if made == nil {
		volume, err := known("volume", source, c.disks.image(source))
		if err != nil {
			return nil, err
		}
		made = &record{Bytes: volume.Bytes, Source: source, Created: time.Now()}
		part := target + ".part"
		os.Remove(part)
		if err := c.still(source, volume, part); err != nil {
			return nil, err
		}
		if err := os.Rename(part, target); err != nil {
			return nil, status.Error(codes.Internal, err.Error())
		}
		if err := write(target, made); err != nil {
			return nil, err
		}
	}
	return &csi.CreateSnapshotResponse{Snapshot: &csi.Snapshot{
		SnapshotId: id, SourceVolumeId: source, SizeBytes: made.Bytes, CreationTime: timestamppb.New(made.Created), ReadyToUse: true,
	}}, nil
}

func (c *controller) DeleteSnapshot(_ context.Context, request *csi.DeleteSnapshotRequest) (*csi.DeleteSnapshotResponse, error) {
	release, err := c.hold(request.GetSnapshotId())
	if err != nil {
		return nil, err
	}
	defer release()
	if checked("snapshot", request.GetSnapshotId()) != nil {
		return &csi.DeleteSnapshotResponse{}, nil
	}
	return &csi.DeleteSnapshotResponse{}, remove(c.disks.snapshot(request.GetSnapshotId()))
}

// Copies a volume's image while its file system holds still, which the node that has it mounted sees to. A node that is off
// has nothing mounted; one that hangs or is slow is waited for, and the request comes again.
func (c *controller) still(id string, volume *record, part string) error {
	if volume.Node == "" {
		return copied(c.disks.image(id), part)
	}
	socket := fmt.Sprintf(c.nodes, volume.Node)
	probe, err := net.Dial("unix", socket)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		mounted, err := loops(c.disks.image(id))
		if err == nil && len(mounted) != 0 {
			err = status.Errorf(codes.Unavailable, "volume %s is mounted on %s, whose driver does not answer", id, volume.Node)
		}
		if err != nil {
			return err
		}
		return copied(c.disks.image(id), part)
	}
	if err != nil {
		return status.Errorf(codes.Unavailable, "node %s: %v", volume.Node, err)
	}
	probe.Close()
	connection, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return status.Errorf(codes.Unavailable, "node %s: %v", volume.Node, err)
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Second)
	defer cancel()
	request := &csi.CreateSnapshotRequest{SourceVolumeId: id, Name: strings.TrimPrefix(part, c.disks.folder+"/")}
	_, err = csi.NewControllerClient(connection).CreateSnapshot(ctx, request)
	return err
}
