// Command triggerd turns Microsoft 365 mail and calendar changes into normalized events on NATS.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes.
const (
	exitDone      = 0
	exitFailed    = 1
	exitUsage     = 2 // usage or configuration
	exitUnhealthy = 3 // answered, but unhealthy
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run is main without the process: signals, arguments and exit codes live here only.
func run(args []string, stdout, stderr io.Writer) int {
	noCoreDumps()
	signal.Ignore(syscall.SIGPIPE) // a reader that goes away is no reason to die
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal kills at once
	cmd := rootCommand()
	cmd.SetArgs(args)
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	err := cmd.ExecuteContext(ctx)
	return exitCode(err, stderr)
}

// exitError carries an exit code other than 1 and, where err is nil, nothing to print.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// usage marks an error of usage or configuration.
func usage(err error) error {
	if err == nil {
		return nil
	}
	return &exitError{exitUsage, err}
}

func exitCode(err error, stderr io.Writer) int {
	if err == nil {
		return exitDone
	}
	if text := err.Error(); text != "" {
		fmt.Fprintf(stderr, "triggerd: %s\n", text)
	}
	if e, ok := errors.AsType[*exitError](err); ok {
		return e.code
	}
	return exitFailed
}

func rootCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:           "triggerd",
		Short:         "Microsoft 365 mail and calendar changes as events on NATS, none of them lost",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		Example:       "  triggerd demo          # all of it on a laptop, no tenant needed\n  triggerd check         # what the configuration says\n  triggerd run           # the daemon",
	}
	cmd.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usage(fmt.Errorf("%w\nTry: %s --help", err, c.CommandPath()))
	})
	cmd.AddCommand(runCommand(), demoCommand(), checkCommand(), loginCommand(), scopesCommand(), keyCommand(), statusCommand(), tailCommand(), resyncCommand(), reloadCommand(), logLevelCommand(), quarantineCommand(), backupCommand(), restoreCommand(),
		emulatorCommand(), schemaCommand(), versionCommand(), manCommand())
	for _, c := range cmd.Commands() {
		c.Args = usageArgs(c.Args)
	}
	return cmd
}

// usageArgs makes wrong arguments an error of usage.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return usage(fmt.Errorf("%w\nTry: %s --help", err, c.CommandPath()))
		}
		return nil
	}
}

// isTerminal reports whether colours and progress make sense on a stream.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// colours also obeys https://no-color.org.
func colours(w io.Writer) bool { return isTerminal(w) && os.Getenv("NO_COLOR") == "" }
