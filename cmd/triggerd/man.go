package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// manCommand writes the manual. It is hidden: packages are built with it, and nobody else needs it. The pages are made here
// and not by cobra/doc, which takes help texts for Markdown and would run the table of settings together.
func manCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "man DIRECTORY",
		Short:   "Writes the manual, a page for each command",
		Example: "  triggerd man /usr/local/share/man/man1",
		Hidden:  true,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			return writeManual(cmd.Root(), args[0])
		},
	}
}

// writeManual writes the page of a command and of all below it.
func writeManual(c *cobra.Command, dir string) error {
	name := manName(c) + ".1"
	if err := os.WriteFile(filepath.Join(dir, name), []byte(manPage(c)), 0o644); err != nil {
		return err
	}
	for _, sub := range documented(c) {
		if err := writeManual(sub, dir); err != nil {
			return err
		}
	}
	return nil
}

// documented lists the commands below c that a user types; help and completion explain themselves.
func documented(c *cobra.Command) (out []*cobra.Command) {
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() && sub.Name() != "help" && sub.Name() != "completion" {
			out = append(out, sub)
		}
	}
	return out
}

func manName(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

// manPage is a page in roff.
func manPage(c *cobra.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, ".TH %s 1 \"\" triggerd \"triggerd manual\"\n", roff(strings.ToUpper(manName(c))))
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", roff(manName(c)), roff(c.Short))
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.B %s\n", roff(c.UseLine()))
	if c.Long != "" {
		b.WriteString(".SH DESCRIPTION\n")
		for part := range strings.SplitSeq(c.Long, "\n\n") {
			paragraph(&b, part)
		}
	}
	if c.HasAvailableFlags() {
		b.WriteString(".SH OPTIONS\n")
		c.NonInheritedFlags().VisitAll(func(f *pflag.Flag) { manOption(&b, f) })
		c.InheritedFlags().VisitAll(func(f *pflag.Flag) { manOption(&b, f) })
	}
	if c.Example != "" {
		section(&b, "EXAMPLES", c.Example)
	}
	section(&b, "EXIT STATUS", "0 done, 1 failed, 2 usage or configuration, 3 answered but unhealthy")
	if list := related(c); len(list) > 0 {
		fmt.Fprintf(&b, ".SH SEE ALSO\n%s\n", strings.Join(list, ",\n"))
	}
	return b.String()
}

// paragraph fills lines with a single line of help; several lines may be a table, and stay as they are.
func paragraph(b *strings.Builder, text string) {
	text = roff(strings.TrimRight(text, "\n"))
	if strings.Contains(text, "\n") {
		text = ".nf\n" + text + "\n.fi"
	}
	fmt.Fprintf(b, ".PP\n%s\n", text)
}

// section shows text as it is, without filling lines.
func section(b *strings.Builder, title, text string) {
	fmt.Fprintf(b, ".SH %s\n.nf\n%s\n.fi\n", title, roff(strings.TrimRight(text, "\n")))
}

func manOption(b *strings.Builder, f *pflag.Flag) {
	if f.Hidden {
		return
	}
	b.WriteString(".TP\n.B ")
	if f.Shorthand != "" {
		fmt.Fprintf(b, "\\-%s, ", f.Shorthand)
	}
	kind, text := pflag.UnquoteUsage(f)
	fmt.Fprintf(b, "%s\n%s\n", roff(strings.TrimSpace("--"+f.Name+" "+kind)), roff(text))
}

// related names the pages above and below.
func related(c *cobra.Command) (out []string) {
	if c.HasParent() {
		out = append(out, roff(manName(c.Parent()))+"(1)")
	}
	for _, sub := range documented(c) {
		out = append(out, roff(manName(sub))+"(1)")
	}
	return out
}

// roff escapes what roff would take for its own.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "`", `\(ga`, "'", `\(aq`, "^", `\(ha`, "~", `\(ti`).Replace(text)
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}
