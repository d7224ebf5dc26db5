// Verifies an exported audit log and single proofs with other people's code alone: Tessera's fsck for the
// tlog-tiles folder, golang.org/x/mod/sumdb (the Go checksum database's) for notes and inclusion proofs.
// Nothing of it was written for this format; only the proof file's lines are split here.
package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/api"
	"github.com/transparency-dev/tessera/client"
	"github.com/transparency-dev/tessera/fsck"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("accepted")
}

func run(args []string) error {
	if len(args) == 3 && args[0] == "tiles" {
		return tiles(args[1], args[2])
	}
	if len(args) == 4 && args[0] == "proof" {
		return proof(args[1], args[2], args[3])
	}
	return fmt.Errorf("usage: tiles FOLDER KEY | proof PROOF ENTRY KEY")
}

func tiles(folder, key string) error {
	verifier, err := note.NewVerifier(key)
	if err != nil {
		return err
	}
	leaves := func(data []byte) ([][]byte, error) {
		var bundle api.EntryBundle
		if err := bundle.UnmarshalText(data); err != nil {
			return nil, err
		}
		var hashes [][]byte
		for _, entry := range bundle.Entries {
			hashes = append(hashes, rfc6962.DefaultHasher.HashLeaf(entry))
		}
		return hashes, nil
	}
	source := &client.FileFetcher{Root: folder}
	return fsck.New(verifier.Name(), verifier, source, leaves, fsck.Opts{N: 2}).Check(context.Background())
}

func proof(proofPath, entryPath, key string) error {
	data, err := os.ReadFile(proofPath)
	if err != nil {
		return err
	}
	entry, err := os.ReadFile(entryPath)
	if err != nil {
		return err
	}
	verifier, err := note.NewVerifier(key)
	if err != nil {
		return err
	}
	top, signed, found := bytes.Cut(data, []byte("\n\n"))
	if !found {
		return fmt.Errorf("no empty line")
	}
	head, err := note.Open(signed, note.VerifierList(verifier))
	if err != nil {
		return err
	}
	head3 := strings.Split(head.Text, "\n")
	size, err := strconv.ParseInt(head3[1], 10, 64)
	if err != nil {
		return err
	}
	root, err := tlog.ParseHash(head3[2])
	if err != nil {
		return err
	}
	lines := strings.Split(string(top), "\n")
	index, err := strconv.ParseInt(strings.TrimPrefix(lines[1], "index "), 10, 64)
	if err != nil {
		return err
	}
	var path tlog.RecordProof
	for _, line := range lines[2:] {
		raw, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(raw) != tlog.HashSize {
			return fmt.Errorf("not a hash: %q", line)
		}
		path = append(path, tlog.Hash(raw))
	}
	return tlog.CheckRecord(path, size, root, index, tlog.RecordHash(entry))
}
