package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
)

// logLevels are the levels that there are, as in TRIGGERD_LOG_LEVEL.
var logLevels = []string{"debug", "info", "warn", "error"}

// logLevel is what the admin listener answers and takes.
type logLevel struct {
	Level string `json:"level"`
}

func logLevelCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "log-level [LEVEL]",
		Short: "Shows or changes the level of the running daemon's log, until it ends",
		Long: "LEVEL is debug, info, warn or error. The change is not kept: after a restart TRIGGERD_LOG_LEVEL is in force again.\n" +
			"Nothing is lost by a change, and no level shows secrets, addresses or subjects.",
		Example: "  triggerd log-level\n  triggerd log-level debug",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			method, in := http.MethodGet, any(nil)
			if len(args) > 0 {
				if err := checkLevel(args[0]); err != nil {
					return usage(err)
				}
				method, in = http.MethodPut, logLevel{args[0]}
			}
			client, err := runningDaemon()
			if err != nil {
				return err
			}
			var now logLevel
			if err := client.Call(cmd.Context(), method, "/api/v1/log-level", in, &now); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), now.Level)
			if len(args) > 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "until triggerd ends; TRIGGERD_LOG_LEVEL is for good")
			}
			return nil
		},
	}
}

func checkLevel(name string) error {
	if slices.Contains(logLevels, name) {
		return nil
	}
	return fmt.Errorf("there is no log level %q: write one of %s", name, strings.Join(logLevels, ", "))
}

// levelHandlers let the level of the process be seen and changed. Every logger of the process follows it.
func levelHandlers(log zerolog.Logger) map[string]http.Handler {
	answer := func(w http.ResponseWriter, code int, v any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(v) // the client went away
	}
	return map[string]http.Handler{
		"GET /api/v1/log-level": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			answer(w, http.StatusOK, logLevel{zerolog.GlobalLevel().String()})
		}),
		"PUT /api/v1/log-level": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var want logLevel
			err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<10)).Decode(&want)
			if err == nil {
				err = checkLevel(want.Level)
			}
			level, perr := zerolog.ParseLevel(want.Level)
			if err != nil || perr != nil {
				answer(w, http.StatusBadRequest, map[string]string{"error": "the log level must be one of " + strings.Join(logLevels, ", ")})
				return
			}
			zerolog.SetGlobalLevel(level)
			log.Log().Str("log_level", want.Level).Msg("log level changed")
			answer(w, http.StatusOK, want)
		}),
	}
}
