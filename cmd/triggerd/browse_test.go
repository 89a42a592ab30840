package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
)

// browse is a command for scripts: it runs `triggerd login` with the arguments after the first three, and is the person
// at the browser. browse paste|device|loopback USER accept|decline ARGS...
func browse() {
	if len(os.Args) < 5 {
		fmt.Fprintln(os.Stderr, "usage: browse paste|device|loopback USER accept|decline ARGS...")
		os.Exit(2)
	}
	cmd := exec.Command("triggerd", append([]string{"login"}, os.Args[4:]...)...)
	in, err := cmd.StdinPipe()
	if err != nil {
		panic(err)
	}
	heard, out := io.Pipe()
	cmd.Stdout, cmd.Stderr = io.MultiWriter(os.Stdout, out), io.MultiWriter(os.Stderr, out)
	p := person{way: os.Args[1], user: os.Args[2], answer: os.Args[3], in: in}
	var done sync.WaitGroup
	done.Go(func() {
		for lines := bufio.NewScanner(heard); lines.Scan(); {
			p.hear(lines.Text())
		}
		_, _ = io.Copy(io.Discard, heard)
	})
	err = cmd.Run()
	out.Close()
	done.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		panic(err)
	}
}

// person reads what login prints, and does it.
type person struct {
	way, user, answer string
	page              string // for the code
	in                io.Writer
}

var (
	signInAt = regexp.MustCompile(`^\s+(http://\S+/authorize\?\S+)$`)
	typeAt   = regexp.MustCompile(`^Open (http://\S+) on any device`)
	theCode  = regexp.MustCompile(`^\s+([A-Z]{9})$`)
)

func (p *person) hear(line string) {
	form := url.Values{"user": {p.user}, "answer": {p.answer}}
	if m := typeAt.FindStringSubmatch(line); m != nil {
		p.page = m[1]
	}
	if m := theCode.FindStringSubmatch(line); m != nil {
		form.Set("code", m[1])
		p.open(http.PostForm(p.page, form))
	}
	m := signInAt.FindStringSubmatch(line)
	if m == nil {
		return
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.PostForm(m[1], form)
	p.open(resp, err)
	if err != nil {
		return
	}
	back := resp.Header.Get("Location")
	if p.way == "loopback" {
		go func() { p.open(http.Get(strings.Replace(back, "localhost", "127.0.0.1", 1))) }()
		return
	}
	fmt.Fprintln(p.in, back)
}

func (p *person) open(resp *http.Response, err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "browse:", err)
		return
	}
	resp.Body.Close()
}
