// Reads request targets, one on each line, and prints how Go's parsers read the path of each, separated by tabs.
package main

import (
	"bufio"
	"fmt"
	"net/url"
	"os"
	"path"
	"strings"
)

func main() {
	base, _ := url.Parse("http://api.example/")
	in := bufio.NewScanner(os.Stdin)
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	for in.Scan() {
		var readings []string
		for _, parse := range []func(string) (*url.URL, error){url.ParseRequestURI, url.Parse, base.Parse} {
			if parsed, err := parse(in.Text()); err == nil {
				readings = append(readings, parsed.Path, parsed.EscapedPath(), path.Clean(parsed.Path), path.Clean(parsed.EscapedPath()))
			}
		}
		fmt.Fprintln(out, strings.Join(readings, "\t"))
	}
}
