package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/triggerd/triggerd/internal/config"
	"github.com/triggerd/triggerd/internal/daemon"
	"github.com/triggerd/triggerd/internal/status"
	"github.com/triggerd/triggerd/internal/store"
)

func quarantineCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "quarantine",
		Short: "What could not be processed, parked with its reason",
		Long: "An item of a mailbox that makes no sense, or an event that NATS will never take, is parked, so that everything behind it can go on.\n" +
			"Nothing of it is lost: mend the reason and retry it.",
		Example: "  triggerd quarantine list\n  triggerd quarantine retry --all",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(quarantineListCommand(), quarantineShowCommand(),
		quarantineEachCommand("retry", "Tries entries again: reads the item, or publishes the event", "  triggerd quarantine retry 3\n  triggerd quarantine retry --all", retryOne),
		quarantineEachCommand("drop", "Forgets entries for good", "  triggerd quarantine drop 3 4", dropOne))
	for _, c := range cmd.Commands() {
		c.Args = usageArgs(c.Args)
	}
	return cmd
}

// parked lists the quarantine, through the daemon where one runs.
func parked(ctx context.Context, set config.Settings) (out []status.Parked, err error) {
	client, err := adminClient(set)
	if err != nil {
		return nil, err
	}
	err = client.Call(ctx, http.MethodGet, "/api/v1/quarantine", nil, &out)
	if !errors.Is(err, status.ErrNoDaemon) {
		return out, err
	}
	err = withState(set, func(st *store.Store) error {
		entries, err := st.Quarantined()
		for i := range entries {
			out = append(out, daemon.Parked(&entries[i], nil))
		}
		return err
	})
	return out, err
}

func quarantineListCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "Lists what is parked, oldest first",
		Example: "  triggerd quarantine list",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			set, err := config.LoadSettings()
			if err != nil {
				return usage(err)
			}
			entries, err := parked(cmd.Context(), set)
			switch {
			case err != nil:
				return err
			case asJSON:
				return printJSON(cmd.OutOrStdout(), entries)
			case len(entries) == 0:
				_, err = fmt.Fprintln(cmd.OutOrStdout(), "nothing is parked")
				return err
			}
			return listParked(cmd.OutOrStdout(), entries)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func listParked(w io.Writer, entries []status.Parked) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "ENTRY\tSINCE\tKIND\tMAILBOX\tFOLDER OR CALENDAR\tREASON")
	for i := range entries {
		p := &entries[i]
		fmt.Fprintf(tw, "%d\t%s\t%s\t%s\t%s\t%s\n", p.Seq, p.At.Local().Format(time.DateTime), p.Kind, dash(p.Mailbox), dash(printable(p.Folder)), printable(p.Reason))
	}
	return tw.Flush()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func quarantineShowCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "show ENTRY",
		Short:   "Shows an entry with what it is about, which may be somebody's mail or meeting",
		Example: "  triggerd quarantine show 3",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			set, seqs, err := entryNumbers(args)
			if err != nil {
				return err
			}
			p, err := showOne(cmd.Context(), set, seqs[0])
			switch {
			case err != nil:
				return entryError(seqs[0], err)
			case asJSON:
				return printJSON(cmd.OutOrStdout(), p)
			}
			return showParked(cmd.OutOrStdout(), &p)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func showOne(ctx context.Context, set config.Settings, seq uint64) (p status.Parked, err error) {
	client, err := adminClient(set)
	if err != nil {
		return p, err
	}
	err = client.Call(ctx, http.MethodGet, entryPath(seq), nil, &p)
	if !errors.Is(err, status.ErrNoDaemon) {
		return p, err
	}
	err = withState(set, func(st *store.Store) error {
		q, err := st.Parked(seq)
		p = daemon.Parked(&q, nil)
		p.Raw = q.Raw
		return err
	})
	return p, err
}

func showParked(w io.Writer, p *status.Parked) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, line := range [][2]string{
		{"entry", strconv.FormatUint(p.Seq, 10)}, {"since", p.At.Local().Format(time.DateTime)}, {"kind", p.Kind}, {"mailbox", p.Mailbox},
		{"folder or calendar", printable(p.Folder)}, {"item", p.Item}, {"event", p.Event}, {"type", p.Type}, {"reason", printable(p.Reason)},
	} {
		if line[1] != "" {
			fmt.Fprintf(tw, "%s\t%s\n", line[0], line[1])
		}
	}
	if err := tw.Flush(); err != nil || len(p.Raw) == 0 {
		return err
	}
	var v any
	if json.Unmarshal(p.Raw, &v) == nil {
		fmt.Fprintln(w)
		return printJSON(w, v)
	}
	_, err := fmt.Fprintf(w, "\n%q\n", p.Raw) // it may steer the terminal
	return err
}

// quarantineEachCommand makes a command that does something with entries, one after the other.
func quarantineEachCommand(name, short, example string, do func(context.Context, config.Settings, uint64) (string, error)) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:     name + " ENTRY...",
		Short:   short,
		Example: example,
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if all == (len(args) > 0) {
				return usage(fmt.Errorf("name entries of `triggerd quarantine list`, or write --all"))
			}
			set, seqs, err := entryNumbers(args)
			if err != nil {
				return err
			}
			if all {
				entries, err := parked(cmd.Context(), set)
				if err != nil {
					return err
				}
				for i := range entries {
					seqs = append(seqs, entries[i].Seq)
				}
			}
			var failed []error
			for _, seq := range seqs {
				text, err := do(cmd.Context(), set, seq)
				if err != nil {
					failed = append(failed, entryError(seq, err))
					continue
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%d: %s\n", seq, text)
			}
			return errors.Join(failed...)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "all entries")
	return cmd
}

func entryNumbers(args []string) (set config.Settings, seqs []uint64, err error) {
	for _, a := range args {
		seq, err := strconv.ParseUint(strings.TrimPrefix(a, "#"), 10, 64)
		if err != nil {
			return set, nil, usage(fmt.Errorf("%q is no entry: `triggerd quarantine list` numbers them", a))
		}
		seqs = append(seqs, seq)
	}
	set, err = config.LoadSettings()
	return set, seqs, usage(err)
}

func entryPath(seq uint64) string { return "/api/v1/quarantine/" + strconv.FormatUint(seq, 10) }

func entryError(seq uint64, err error) error { return fmt.Errorf("entry %d: %w", seq, err) }

// retryOne tries an entry again. An item needs the daemon, which reads it.
func retryOne(ctx context.Context, set config.Settings, seq uint64) (string, error) {
	client, err := adminClient(set)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var out daemon.Retried
	if err := client.Call(ctx, http.MethodPost, entryPath(seq)+"/retry", nil, &out); err != nil {
		return "", err
	}
	if out.Again > 0 {
		return "", fmt.Errorf("%s (entry %d now)", out.Text, out.Again)
	}
	return out.Text, nil
}

func dropOne(ctx context.Context, set config.Settings, seq uint64) (string, error) {
	client, err := adminClient(set)
	if err != nil {
		return "", err
	}
	err = client.Call(ctx, http.MethodDelete, entryPath(seq), nil, &struct{}{})
	if errors.Is(err, status.ErrNoDaemon) {
		err = withState(set, func(st *store.Store) error {
			return st.Update(func(tx *store.Tx) error { return tx.DropQuarantine(seq) })
		})
	}
	return "dropped", err
}
