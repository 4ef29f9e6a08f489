// What the kubelet asks for, on its node.
package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

type node struct {
	csi.UnimplementedNodeServer
	disks *disks
	name  string
}

func (n *node) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: n.name}, nil
}

func (n *node) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	answer := &csi.NodeGetCapabilitiesResponse{}
	for _, one := range []csi.NodeServiceCapability_RPC_Type{
		csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME,
		csi.NodeServiceCapability_RPC_EXPAND_VOLUME,
		csi.NodeServiceCapability_RPC_GET_VOLUME_STATS,
		csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	} {
		rpc := &csi.NodeServiceCapability_RPC{Type: one}
		answer.Capabilities = append(answer.Capabilities, &csi.NodeServiceCapability{Type: &csi.NodeServiceCapability_Rpc{Rpc: rpc}})
	}
	return answer, nil
}

func (n *node) NodeStageVolume(_ context.Context, request *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	id, point := request.GetVolumeId(), request.GetStagingTargetPath()
	volume, err := known("volume", id, n.disks.image(id))
	if err != nil {
		return nil, err
	}
	if volume.Node != n.name {
		return nil, status.Errorf(codes.FailedPrecondition, "volume %s is not attached to %s", id, n.name)
	}
	if why := unusable([]*csi.VolumeCapability{request.GetVolumeCapability()}); why != "" {
		return nil, status.Error(codes.InvalidArgument, why)
	}
	have, err := device(point)
	if err != nil {
		return nil, err
	}
	if have == "" {
		// The loop device goes with the mount, also when the node loses its power.
		// Copies have the identity of their original, which XFS refuses to mount twice.
		flags := append([]string{"loop", "nouuid"}, request.GetVolumeCapability().GetMount().GetMountFlags()...)
		if _, err := run("mount", "-t", "xfs", "-o", strings.Join(flags, ","), n.disks.image(id), point); err != nil {
			return nil, err
		}
	}
	// It may be of a smaller snapshot.
	_, err = run("xfs_growfs", "-d", point)
	return &csi.NodeStageVolumeResponse{}, err
}

func (n *node) NodeUnstageVolume(_ context.Context, request *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	return &csi.NodeUnstageVolumeResponse{}, unmount(request.GetStagingTargetPath())
}

func unmount(point string) error {
	for {
		have, err := device(point)
		if err != nil || have == "" {
			return err
		}
		if _, err := run("umount", point); err != nil {
			return err
		}
	}
}

func (n *node) NodePublishVolume(_ context.Context, request *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	point := request.GetTargetPath()
	if have, err := device(request.GetStagingTargetPath()); err != nil || have == "" {
		return nil, status.Errorf(codes.FailedPrecondition, "volume %s is not staged", request.GetVolumeId())
	}
	have, err := device(point)
	if err != nil || have != "" {
		return &csi.NodePublishVolumeResponse{}, err
	}
	if err := os.MkdirAll(point, 0o750); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	options := "bind"
	if request.GetReadonly() {
		options = "bind,ro"
	}
	_, err = run("mount", "-o", options, request.GetStagingTargetPath(), point)
	return &csi.NodePublishVolumeResponse{}, err
}

func (n *node) NodeUnpublishVolume(_ context.Context, request *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	if err := unmount(request.GetTargetPath()); err != nil {
		return nil, err
	}
	if err := os.Remove(request.GetTargetPath()); err != nil && !os.IsNotExist(err) {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

func (n *node) NodeExpandVolume(_ context.Context, request *csi.NodeExpandVolumeRequest) (*csi.NodeExpandVolumeResponse, error) {
	volume, err := known("volume", request.GetVolumeId(), n.disks.image(request.GetVolumeId()))
	if err != nil {
		return nil, err
	}
	have, err := device(request.GetVolumePath())
	if err == nil && have == "" {
		err = status.Errorf(codes.NotFound, "nothing is mounted at %s", request.GetVolumePath())
	}
	if err == nil {
		_, err = run("losetup", "--set-capacity", have)
	}
	if err == nil {
		_, err = run("xfs_growfs", "-d", request.GetVolumePath())
	}
	return &csi.NodeExpandVolumeResponse{CapacityBytes: volume.Bytes}, err
}

func (n *node) NodeGetVolumeStats(_ context.Context, request *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(request.GetVolumePath(), &fs); err != nil {
		return nil, status.Errorf(codes.NotFound, "%s: %v", request.GetVolumePath(), err)
	}
	block := fs.Bsize
	return &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{
		{Unit: csi.VolumeUsage_BYTES, Total: int64(fs.Blocks) * block, Available: int64(fs.Bavail) * block, Used: int64(fs.Blocks-fs.Bfree) * block},
		{Unit: csi.VolumeUsage_INODES, Total: int64(fs.Files), Available: int64(fs.Ffree), Used: int64(fs.Files - fs.Ffree)},
	}}, nil
}

// What the controller asks a node for: a copy of an image while its file system holds still.
type copier struct {
	csi.UnimplementedControllerServer
	disks *disks
}

func (c *copier) CreateSnapshot(_ context.Context, request *csi.CreateSnapshotRequest) (*csi.CreateSnapshotResponse, error) {
	id, part := request.GetSourceVolumeId(), request.GetName()
	if err := checked("volume", id); err != nil {
		return nil, err
	}
	image, target := c.disks.image(id), filepath.Join(c.disks.folder, filepath.Base(part))
	point, err := staged(image)
	if err != nil {
		return nil, err
	}
	if point != "" {
		if _, err := run("fsfreeze", "--freeze", point); err != nil {
			return nil, err
		}
		defer run("fsfreeze", "--unfreeze", point)
	}
	return &csi.CreateSnapshotResponse{}, copied(image, target)
}

// Lets go what a driver that was killed while it copied held still.
func thaw() {
	table, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(table)) {
		if fields := strings.Fields(line); strings.Contains(line, " - xfs /dev/loop") && len(fields) > 4 {
			// What does not hold still complains.
			run("fsfreeze", "--unfreeze", fields[4])
		}
	}
}

// Where an image is mounted here, or "".
func staged(image string) (string, error) {
	found, err := loops(image)
	if err != nil || len(found) == 0 {
		return "", err
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", status.Errorf(codes.Internal, "the table of mounts cannot be read: %v", err)
	}
	for line := range strings.Lines(string(table)) {
		head, tail, _ := strings.Cut(line, " - ")
		fields, rest := strings.Fields(head), strings.Fields(tail)
		if len(fields) > 4 && len(rest) > 1 && rest[1] == found[0] {
			return fields[4], nil
		}
	}
	return "", status.Errorf(codes.Internal, "%s is %s, which is not mounted on this node", image, found[0])
}
