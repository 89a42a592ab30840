package main

import (
	"fmt"

	"github.com/triggerd/triggerd/internal/config"
	"github.com/triggerd/triggerd/internal/status"
)

// adminClient asks the running daemon, with the token that it wants if it wants one.
func adminClient(set config.Settings) (*status.Client, error) {
	client := status.NewClient(set.AdminListen)
	if set.AdminTokenFile == "" {
		return client, nil
	}
	token, err := config.ReadToken(set.AdminTokenFile)
	if err != nil {
		return nil, usage(fmt.Errorf("TRIGGERD_ADMIN_TOKEN_FILE: %w", err))
	}
	return client.WithToken(token.Reveal()), nil
}

// runningDaemon is the client for the daemon that the environment's settings lead to.
func runningDaemon() (*status.Client, error) {
	set, err := config.LoadSettings()
	if err != nil {
		return nil, usage(err)
	}
	return adminClient(set)
}
