package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/rs/zerolog"

	"github.com/triggerd/triggerd/internal/config"
	"github.com/triggerd/triggerd/internal/graph"
	"github.com/triggerd/triggerd/internal/probe"
	"github.com/triggerd/triggerd/internal/publish"
	"github.com/triggerd/triggerd/internal/status"
)

// onlineTimeout bounds all questions together.
const onlineTimeout = 5 * time.Minute

// checkOnline asks NATS, the login endpoints and Graph, through the daemon when one runs.
func checkOnline(ctx context.Context, set config.Settings, file *config.File) ([]probe.Finding, error) {
	ctx, cancel := context.WithTimeout(ctx, onlineTimeout)
	defer cancel()
	client, err := adminClient(set)
	if err != nil {
		return nil, err
	}
	rep, err := client.Status(ctx)
	if err == nil {
		return askDaemon(ctx, client, &rep)
	}
	if !errors.Is(err, status.ErrNoDaemon) {
		return nil, err
	}
	out := []probe.Finding{checkNATS(ctx, set)}
	if set.PublicURL != "" {
		out = append(out, probe.Finding{Connection: "public URL", OK: true, Text: "not asked: only the running daemon answers there"})
	}
	found, err := askAlone(ctx, set, file)
	return append(out, found...), err
}

// askDaemon has the daemon ask with what it holds, and adds what it knows anyway.
func askDaemon(ctx context.Context, client *status.Client, rep *status.Report) ([]probe.Finding, error) {
	nats := probe.Finding{Connection: "NATS", OK: rep.NATS.Connected, Text: "connected, stream " + rep.NATS.Stream}
	if !nats.OK {
		nats.Text, nats.Remedy, nats.Who = rep.NATS.LastError, "start NATS, or compare TRIGGERD_NATS_URL", probe.Operator
	}
	out := []probe.Finding{nats}
	if p := &rep.Public; p.URL != "" {
		f := probe.Finding{Connection: "public URL", OK: p.OK, Text: "answers"}
		if !p.OK {
			f.Text, f.Remedy, f.Who = p.Reason, "check DNS, the reverse proxy and its certificate", probe.Operator
		}
		out = append(out, f)
	}
	var found []probe.Finding
	err := client.Call(ctx, http.MethodPost, "/api/v1/check", nil, &found)
	return append(out, found...), err
}

func checkNATS(ctx context.Context, set config.Settings) probe.Finding {
	f := probe.Finding{Connection: "NATS", OK: true, Text: "embedded: starts with the daemon"}
	if set.NATSURL == "" {
		return f
	}
	text, err := publish.Probe(ctx, publish.Options{
		URL: set.NATSURL, CredsFile: set.NATSCredsFile, NKeyFile: set.NATSNKeyFile, TLSCAFile: set.NATSTLSCAFile, TLSCertFile: set.NATSTLSCertFile,
		TLSKeyFile: set.NATSTLSKeyFile, Stream: set.Stream, SubjectPrefix: set.SubjectPrefix, Structured: set.EventMode == "structured", AckHold: set.AckHold,
	})
	if f.Text = text; err != nil {
		f.OK, f.Text, f.Who = false, err.Error(), probe.Operator
	}
	return f
}

// askAlone asks with the state opened here. Where there is none yet, none is made.
func askAlone(ctx context.Context, set config.Settings, file *config.File) (found []probe.Finding, err error) {
	if _, serr := os.Stat(filepath.Join(set.StateDir, "triggerd.db")); serr != nil {
		dir, derr := os.MkdirTemp("", "triggerd-check-*")
		if derr != nil {
			return nil, derr
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
		set.StateDir = dir
	}
	room, done, err := openConnections(set, file)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, done()) }()
	graphs := map[string]probe.Graph{}
	for name, c := range file.Connections {
		graphs[name], err = graph.New(graph.Options{Root: c.Cloud.Graph, Tokens: room.Source(name), NoDelta: c.Cloud.NoDelta, UserAgent: "triggerd/" + version().Version, Log: zerolog.Nop()})
		if err != nil {
			return nil, err
		}
	}
	return probe.Run(ctx, file, room, graphs), nil
}

// explainOnline shows findings, and fails when one is not as it should be.
func explainOnline(w io.Writer, found []probe.Finding) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw)
	for _, f := range found {
		mark := "✓"
		if !f.OK {
			mark = "✗"
		}
		fmt.Fprintf(tw, "%s %s\t%s\t%s\n", mark, f.Connection, f.Mailbox, f.Text)
		if f.Remedy != "" {
			fmt.Fprintf(tw, "\t\t→ %s (%s)\n", f.Remedy, f.Who)
		}
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	return verdict(found)
}

// verdict fails when something is not as it should be.
func verdict(found []probe.Finding) error {
	bad := 0
	for _, f := range found {
		if !f.OK {
			bad++
		}
	}
	if bad > 0 {
		return &exitError{exitUnhealthy, fmt.Errorf("%d of %d are not as they should be", bad, len(found))}
	}
	return nil
}
