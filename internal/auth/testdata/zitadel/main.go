// Command zitadel serves the example server of zitadel/oidc, a certified library, for tests: on loopback only. It prints
// its port, and ends with its standard input.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"

	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

func main() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	issuer := fmt.Sprintf("http://localhost:%d/", port)
	storage.RegisterClients(
		storage.NativeClient("native", "http://127.0.0.1:8400/callback"),
		storage.WebClient("web", "secret-canary", "http://127.0.0.1:8400/callback"),
	)
	users := storage.NewUserStore(issuer)
	handler := exampleop.SetupServer(issuer, store{storage.NewStorage(users), users}, slog.New(slog.NewTextHandler(io.Discard, nil)), false)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	fmt.Println("port", port)
	if err := http.Serve(l, handler); err != nil {
		panic(err)
	}
}

// store mends the example where it comes to devices: its page hands on the user's name in place of the id, and it has no
// client for them that is public.
type store struct {
	*storage.Storage
	users storage.UserStore
}

func (s store) CompleteDeviceAuthorization(ctx context.Context, userCode, name string) error {
	return s.Storage.CompleteDeviceAuthorization(ctx, userCode, s.users.GetUserByUsername(name).ID)
}

func (s store) GetClientByClientID(ctx context.Context, id string) (op.Client, error) {
	c, err := s.Storage.GetClientByClientID(ctx, id)
	if err != nil {
		return nil, err
	}
	return client{c}, nil
}

type client struct{ op.Client }

func (c client) GrantTypes() []oidc.GrantType {
	return append([]oidc.GrantType{oidc.GrantTypeDeviceCode}, c.Client.GrantTypes()...)
}
