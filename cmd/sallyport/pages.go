//go:build !small

package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func init() { nouns = append(nouns, manpagesCommand, markdownCommand) }

func manpagesCommand(a *app) *cobra.Command {
	var dir string
	var plain bool
	cmd := &cobra.Command{Use: "manpages [flags]", Short: "Write a manual page for each command", GroupID: groupOther, Args: cobra.NoArgs, Example: `  sallyport manpages
  sallyport manpages --dir man1 --no-compression`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dir == "" {
				home, err := os.UserHomeDir()
				if err != nil {
					return err
				}
				dir = filepath.Join(home, ".local/share/man/man1")
			}
			name, write := func(c *cobra.Command) string { return pageName(c) + ".1.gz" }, manPage
			if plain {
				name = func(c *cobra.Command) string { return pageName(c) + ".1" }
			} else {
				write = func(w io.Writer, c *cobra.Command) error {
					z, err := gzip.NewWriterLevel(w, gzip.BestCompression) // as packages want them
					if err != nil {
						return err
					}
					if err := manPage(z, c); err != nil {
						return err
					}
					return z.Close()
				}
			}
			return a.writePages(cmd.Root(), dir, name, write)
		}}
	cmd.Flags().StringVarP(&dir, "dir", "d", "", "the `DIR` for them (default: ~/.local/share/man/man1)")
	cmd.Flags().BoolVarP(&plain, "no-compression", "n", false, "do not compress them")
	return cmd
}

func markdownCommand(a *app) *cobra.Command {
	var dir string
	cmd := &cobra.Command{Use: "markdown [flags]", Short: "Write a Markdown page for each command", GroupID: groupOther, Hidden: true, Args: cobra.NoArgs, Example: `  sallyport markdown --dir pages`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.writePages(cmd.Root(), dir, func(c *cobra.Command) string { return pageName(c) + ".md" }, markdownPage)
		}}
	cmd.Flags().StringVarP(&dir, "dir", "d", "sallyport_markdown_pages", "the `DIR` for them")
	return cmd
}

// pageName is "sallyport-node-create" for that command.
func pageName(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

// writePages writes a file for each command that is not hidden.
func (a *app) writePages(root *cobra.Command, dir string, name func(*cobra.Command) string, write func(io.Writer, *cobra.Command) error) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var failed error
	pages := 0
	walk(root, func(c *cobra.Command) {
		if failed != nil || hidden(c) {
			return
		}
		var b bytes.Buffer
		if failed = write(&b, c); failed == nil {
			failed = os.WriteFile(filepath.Join(dir, name(c)), b.Bytes(), 0o644)
			pages++
		}
	})
	if failed == nil {
		a.done("Wrote %s to %s", plural(pages, "page"), dir)
	}
	return failed
}

func hidden(c *cobra.Command) bool {
	for ; c != nil; c = c.Parent() {
		if c.Hidden {
			return true
		}
	}
	return false
}

// visibleFlags calls f for the flags of a command that its help lists, with their form: "-t, --tcp-listener-address HOST:PORT".
func visibleFlags(c *cobra.Command, f func(form, usage string)) {
	c.LocalFlags().VisitAll(func(flag *pflag.Flag) {
		if flag.Hidden {
			return
		}
		value, usage := pflag.UnquoteUsage(flag)
		form := "--" + flag.Name
		if flag.Shorthand != "" {
			form = "-" + flag.Shorthand + ", " + form
		}
		if value != "" {
			form += " " + value
		}
		f(form, usage)
	})
}

// roff escapes text for a manual page: a backslash, a dash, and a dot or quote that would begin a request.
func roff(text string) string {
	lines := strings.Split(strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text), "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}

func manPage(w io.Writer, c *cobra.Command) error {
	var b strings.Builder
	fmt.Fprintf(&b, ".TH \"%s\" \"1\" \"\" \"sallyport %s\" \"Sallyport\"\n", roff(strings.ToUpper(pageName(c))), roff(version()))
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n.SH SYNOPSIS\n.B %s\n", roff(pageName(c)), roff(c.Short), roff(c.UseLine()))
	if c.Long != "" {
		fmt.Fprintf(&b, ".SH DESCRIPTION\n%s\n", roff(c.Long))
	}
	section := func(title string) func(string, string) {
		first := true
		return func(term, text string) {
			if first {
				fmt.Fprintf(&b, ".SH %s\n", title)
			}
			first = false
			fmt.Fprintf(&b, ".TP\n\\fB%s\\fR\n%s\n", roff(term), roff(text))
		}
	}
	visibleFlags(c, section("OPTIONS"))
	commands := section("COMMANDS")
	for _, sub := range c.Commands() {
		if !sub.Hidden {
			commands(pageName(sub)+"(1)", sub.Short)
		}
	}
	if c.Example != "" {
		fmt.Fprintf(&b, ".SH EXAMPLES\n.nf\n%s\n.fi\n", roff(c.Example))
	}
	if c.HasParent() {
		fmt.Fprintf(&b, ".SH SEE ALSO\n\\fB%s\\fR(1)\n", roff(pageName(c.Parent())))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func markdownPage(w io.Writer, c *cobra.Command) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n%s\n\n```\n%s\n```\n", c.CommandPath(), c.Short, c.UseLine())
	if c.Long != "" {
		fmt.Fprintf(&b, "\n%s\n", c.Long)
	}
	first := true
	visibleFlags(c, func(form, usage string) {
		if first {
			b.WriteString("\n## Flags\n\n")
		}
		first = false
		fmt.Fprintf(&b, "- `%s`: %s\n", form, usage)
	})
	first = true
	for _, sub := range c.Commands() {
		if sub.Hidden {
			continue
		}
		if first {
			b.WriteString("\n## Commands\n\n")
		}
		first = false
		fmt.Fprintf(&b, "- [%s](%s.md): %s\n", sub.CommandPath(), pageName(sub), sub.Short)
	}
	if c.Example != "" {
		fmt.Fprintf(&b, "\n## Examples\n\n```\n%s\n```\n", c.Example)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
