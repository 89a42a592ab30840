package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/triggerd/triggerd/internal/certificate"
	"github.com/triggerd/triggerd/internal/config"
	"github.com/triggerd/triggerd/internal/daemon"
	"github.com/triggerd/triggerd/internal/seal"
	"github.com/triggerd/triggerd/internal/service"
)

func runCommand() *cobra.Command {
	var table strings.Builder
	if err := config.Usage(&table); err != nil {
		panic(err) // a strings.Builder takes everything
	}
	return &cobra.Command{
		Use:   "run",
		Short: "The daemon",
		Long: "Runs until it gets SIGINT or SIGTERM; SIGHUP reloads the watch file. What to watch is one YAML file; the process is configured by the environment:\n\n" +
			table.String(),
		Example: "  TRIGGERD_CONFIG=./triggerd.yaml TRIGGERD_STATE_DIR=./state triggerd run",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			set, file, err := loadConfiguration()
			if err != nil {
				return usage(err)
			}
			spareProcessor()
			log := logger(set, cmd.ErrOrStderr())
			zerolog.SetGlobalLevel(log.GetLevel()) // one level for the process, so that it can be changed
			log = log.Level(zerolog.TraceLevel)
			for _, w := range file.Warnings {
				log.Warn().Str("warning", w).Msg("configuration")
			}
			public, err := service.Listener("webhook")
			if err != nil {
				return err
			}
			manager, err := service.NewManager()
			if err != nil {
				return err
			}
			d, err := daemon.New(daemon.Options{Settings: set, File: file, Load: loadWatchFile(set), Log: log, Version: version().Version, Public: public, Handlers: levelHandlers(log)})
			if err != nil {
				return err
			}
			return serve(cmd.Context(), d, manager)
		},
	}
}

// spareProcessor gives the scheduler one processor more than the machine has: the committer keeps one while it waits in
// fdatasync, and the handlers of notifications wait for the committer (docs/operations.md has the figures).
func spareProcessor() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 1)
	}
}

// loadWatchFile reads the watch file again under the settings that the process was started with.
func loadWatchFile(set config.Settings) func() (*config.File, error) {
	return func() (*config.File, error) {
		file, err := config.Load(set.Config)
		if err != nil {
			return nil, err
		}
		return file, config.Check(set, file)
	}
}

// loadConfiguration reads the environment and the watch file and reports the mistakes of both.
func loadConfiguration() (config.Settings, *config.File, error) {
	set, err := config.LoadSettings()
	file, ferr := config.Load(set.Config)
	if err = errors.Join(err, ferr); err != nil {
		return set, file, err
	}
	if err := config.Check(set, file); err != nil {
		return set, file, err
	}
	return set, file, checkFiles(set)
}

// checkFiles reads the files that settings name and the daemon alone may be able to read.
func checkFiles(set config.Settings) error {
	var problems []error
	check := func(name, path string, read func(string) error) {
		if path == "" {
			return
		}
		if err := read(path); err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", name, err))
		}
	}
	check("TRIGGERD_STATE_KEY_FILE", set.StateKeyFile, func(path string) error { _, err := seal.ReadKeys(path); return err })
	check("TRIGGERD_TLS_CERT_FILE", set.TLSCertFile, func(path string) error {
		_, err := certificate.NewFiles(path, set.TLSKeyFile, zerolog.Nop())
		return err
	})
	check("TRIGGERD_ACME_CA_ROOT_FILE", set.ACMECARootFile, func(path string) error { _, err := certificate.ReadRoots(path); return err })
	check("TRIGGERD_ADMIN_TOKEN_FILE", set.AdminTokenFile, func(path string) error { _, err := config.ReadToken(path); return err })
	return errors.Join(problems...)
}

func logger(set config.Settings, w io.Writer) zerolog.Logger {
	if set.LogFormat == "console" || set.LogFormat == "auto" && isTerminal(w) {
		w = zerolog.ConsoleWriter{Out: w, NoColor: !colours(w), TimeFormat: "15:04:05.000"}
	}
	level, err := zerolog.ParseLevel(set.LogLevel)
	if err != nil {
		level = zerolog.InfoLevel // LoadSettings has refused it
	}
	return zerolog.New(w).Level(level).With().Timestamp().Logger()
}

// indent puts spaces before every line.
func indent(s, by string) string {
	return by + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n"+by)
}
