// The images, and what is known of each, as files.
package main

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

type disks struct {
	folder string
}

// A volume (ID.img beside ID.json) or a snapshot (ID.snap beside ID.snap.json). The record is written last: what has none is
// not there.
type record struct {
	Bytes int64
	// The node that a volume is attached to.
	Node string `json:",omitempty"`
	// What a volume was made of; the volume that a snapshot is of.
	Source  string    `json:",omitempty"`
	Created time.Time `json:",omitempty"`
}

var names = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,120}$`)

// Names come over a socket and become file names.
func checked(kind, name string) error {
	if !names.MatchString(name) {
		return status.Errorf(codes.InvalidArgument, "%q cannot be the name of a %s", name, kind)
	}
	return nil
}

func (d *disks) image(volume string) string      { return filepath.Join(d.folder, volume+".img") }
func (d *disks) snapshot(snapshot string) string { return filepath.Join(d.folder, snapshot+".snap") }

func about(image string) string { return strings.TrimSuffix(image, ".img") + ".json" }

// What is known of an image; nil when it is not there.
func read(image string) (*record, error) {
	text, err := os.ReadFile(about(image))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	found := &record{}
	if err == nil {
		err = json.Unmarshal(text, found)
	}
	if err != nil {
		return nil, status.Errorf(codes.Internal, "what is known of %s cannot be read: %v", image, err)
	}
	return found, nil
}

// As read, but it must be there.
func known(kind, name, image string) (*record, error) {
	if err := checked(kind, name); err != nil {
		return nil, err
	}
	found, err := read(image)
	if err == nil && found == nil {
		err = status.Errorf(codes.NotFound, "there is no %s %s", kind, name)
	}
	return found, err
}

func write(image string, what *record) error {
	text, err := json.Marshal(what)
	if err == nil {
		err = os.WriteFile(about(image)+".part", text, 0o600)
	}
	if err == nil {
		err = os.Rename(about(image)+".part", about(image))
	}
	if err != nil {
		return status.Errorf(codes.Internal, "what is known of %s cannot be written: %v", image, err)
	}
	return nil
}

func remove(image string) error {
	// The record first: without it the rest is rubbish.
	for _, path := range []string{about(image), image} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return status.Errorf(codes.Internal, "%s cannot be removed: %v", path, err)
		}
	}
	return nil
}

// Runs a program; what it printed.
func run(program string, words ...string) (string, error) {
	out, err := exec.Command(program, words...).CombinedOutput()
	if err != nil {
		return "", status.Errorf(codes.Internal, "%s %s: %v: %s", program, strings.Join(words, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

// The loop devices that show an image: whether somebody has it mounted.
func loops(image string) ([]string, error) {
	out, err := run("losetup", "--noheadings", "--output", "NAME", "--associated", image)
	return strings.Fields(out), err
}

// Where a device or a directory is mounted here: device, or "" when it is not.
func device(point string) (string, error) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", status.Errorf(codes.Internal, "the table of mounts cannot be read: %v", err)
	}
	found := ""
	for line := range strings.Lines(string(table)) {
		head, tail, _ := strings.Cut(line, " - ")
		fields, rest := strings.Fields(head), strings.Fields(tail)
		if len(fields) > 4 && len(rest) > 1 && fields[4] == point {
			found = rest[1]
		}
	}
	return found, nil
}

// Copies an image with its holes.
func copied(from, to string) error {
	_, err := run("cp", "--sparse=always", "--reflink=auto", from, to)
	return err
}

// A new image of a size, with an empty file system, or with what is in another image.
func (d *disks) fill(part string, bytes int64, fill func(string) error) error {
	if err := fill(part); err != nil {
		return err
	}
	if err := os.Truncate(part, bytes); err != nil {
		return status.Errorf(codes.Internal, "%s cannot have %d bytes: %v", part, bytes, err)
	}
	return nil
}

func formatted(bytes int64) func(string) error {
	return func(part string) error {
		err := os.WriteFile(part, nil, 0o600)
		if err == nil {
			err = os.Truncate(part, bytes)
		}
		if err != nil {
			return status.Errorf(codes.Internal, "%s cannot have %d bytes: %v", part, bytes, err)
		}
		_, err = run("mkfs.xfs", "-q", "-f", part)
		return err
	}
}
