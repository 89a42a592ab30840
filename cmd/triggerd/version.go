package main

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/triggerd/triggerd/internal/event"
)

// build is what the binary knows of itself.
type build struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	Dirty   bool   `json:"dirty,omitempty"`
	Time    string `json:"time,omitempty"`
	Go      string `json:"go"`
}

func version() build {
	b := build{Version: "devel"}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		b.Version = v
	}
	b.Go = info.GoVersion
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.modified":
			b.Dirty = s.Value == "true"
		case "vcs.time":
			b.Time = s.Value
		}
	}
	return b
}

func versionCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Version, commit and Go version",
		Example: "  triggerd version --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b := version()
			if asJSON {
				return printJSON(cmd.OutOrStdout(), b)
			}
			line := "triggerd " + b.Version
			if b.Commit != "" {
				line += " commit " + b.Commit
			}
			if b.Dirty {
				line += " (with changes)"
			}
			fmt.Fprintln(cmd.OutOrStdout(), line+" "+b.Go)
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

func schemaCommand() *cobra.Command {
	areas := []string{event.AreaMail, event.AreaCalendar, event.AreaNotification, event.AreaConnection, event.AreaSubscription, event.AreaWatch, event.Envelope}
	return &cobra.Command{
		Use:       "schema [" + strings.Join(areas, "|") + "]",
		Short:     "JSON Schema of the events",
		Long:      "Prints the JSON Schema (draft 2020-12) of the data of an area's events, or of the CloudEvents envelope. The default is mail.",
		Example:   "  triggerd schema mail > mail.schema.json",
		Args:      cobra.MaximumNArgs(1),
		ValidArgs: areas,
		RunE: func(cmd *cobra.Command, args []string) error {
			name := event.AreaMail
			if len(args) > 0 {
				name = args[0]
			}
			text, ok := event.Schema(name)
			if !ok {
				return usage(fmt.Errorf("there is no schema %q: choose one of %s", name, strings.Join(areas, ", ")))
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s\n", trimNewline(text))
			return err
		},
	}
}

func trimNewline(b []byte) []byte {
	for len(b) > 0 && b[len(b)-1] == '\n' {
		b = b[:len(b)-1]
	}
	return b
}
