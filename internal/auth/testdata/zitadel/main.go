// Command zitadel serves the example server of zitadel/oidc, a certified library, for tests: on loopback only. It prints
// its port, and ends with its standard input.
package main

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"

	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
)

func main() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	issuer := fmt.Sprintf("http://localhost:%d/", port)
	storage.RegisterClients(
		storage.NativeClient("native", "http://127.0.0.1/callback", "http://127.0.0.1:8400/callback"),
		storage.WebClient("web", "secret", "http://127.0.0.1:8400/callback"),
	)
	users := storage.NewUserStore(issuer)
	handler := exampleop.SetupServer(issuer, storage.NewStorage(users), slog.New(slog.NewTextHandler(io.Discard, nil)), false)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	fmt.Println("port", port)
	if err := http.Serve(l, handler); err != nil {
		panic(err)
	}
}
