package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/triggerd/triggerd/internal/status"
)

// watchEvery is how often `status --watch` looks again.
const watchEvery = 2 * time.Second

func statusCommand() *cobra.Command {
	var asJSON, watch, oneLine bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Connections, subscriptions, feeds with freshness, inbox and outbox of the running daemon",
		Long:  "Asks the daemon at TRIGGERD_ADMIN_LISTEN. The exit code is 3 when it answers and is unhealthy; the first line says why.",
		Example: "  triggerd status\n  triggerd status --watch\n  triggerd status --short || page somebody\n" +
			"  triggerd status --json | jq '.feeds[] | {mailbox, area, folder, round_at}'",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := runningDaemon()
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			for {
				rep, err := client.Status(cmd.Context())
				if err != nil {
					return err
				}
				switch {
				case asJSON:
					err = printJSON(out, rep)
				case oneLine:
					_, err = fmt.Fprintln(out, rep.Line())
				default:
					if watch && isTerminal(out) {
						fmt.Fprint(out, "\x1b[H\x1b[2J")
					}
					err = rep.Render(out, colours(out))
				}
				if err != nil {
					return err
				}
				if !watch {
					if !rep.Healthy {
						return &exitError{exitUnhealthy, nil}
					}
					return nil
				}
				select {
				case <-cmd.Context().Done():
					return nil
				case <-time.After(watchEvery):
				}
			}
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&oneLine, "short", false, "print the verdict in one line: healthy, or why not")
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "look again every 2 seconds")
	return cmd
}

func resyncCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "resync WATCH",
		Short:   "Compares every folder and calendar of a watch with the mailbox now, and publishes the difference",
		Example: "  triggerd resync sales",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := runningDaemon()
			if err != nil {
				return err
			}
			n, err := client.Resync(cmd.Context(), args[0])
			if err != nil {
				return withKnownWatches(cmd, client, err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%d feeds of %s are being compared; see `triggerd status`\n", n, args[0])
			return nil
		},
	}
}

func reloadCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "reload",
		Short: "Has the running daemon read the watch file again, as SIGHUP does, and says what it makes of it",
		Long: "Watches that did not change keep their subscriptions, cursors and events. A file with a mistake is refused as a whole and the " +
			"old one stays in force; the exit code is then 2. Settings from the environment need a restart.",
		Example: "  triggerd check && triggerd reload",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := runningDaemon()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), time.Minute)
			defer cancel()
			var out struct{ Watches int }
			err = client.Call(ctx, http.MethodPost, "/api/v1/reload", nil, &out)
			if err != nil && !errors.Is(err, status.ErrNoDaemon) && !errors.Is(err, status.ErrToken) {
				return usage(fmt.Errorf("refused, the old watch file stays in force:\n%w", err))
			}
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "reloaded: %d watches; see `triggerd status`\n", out.Watches)
			return nil
		},
	}
}

// withKnownWatches adds what there is to a complaint about what there is not.
func withKnownWatches(cmd *cobra.Command, client *status.Client, err error) error {
	rep, serr := client.Status(cmd.Context())
	if serr != nil {
		return err
	}
	seen := map[string]bool{}
	var names []string
	for i := range rep.Feeds {
		for _, w := range rep.Feeds[i].Watches {
			if !seen[w] {
				seen[w] = true
				names = append(names, w)
			}
		}
	}
	return fmt.Errorf("%w; there are: %s", err, strings.Join(names, ", "))
}
