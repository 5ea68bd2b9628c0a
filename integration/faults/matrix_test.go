//go:build faults

package faults

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// table is the file whose table of results the matrix writes anew.
var table = flag.String("table", "", "file with the markers between which the results are written")

// TestMatrix runs every case over the brokers that users run, tells each result
// as it comes, and in the end all of them.
func TestMatrix(t *testing.T) {
	kinds := []*brokerKind{mosquitto, nats}
	var all []outcome
	for _, c := range cases() {
		for _, kind := range kinds {
			if len(c.only) > 0 && !slices.Contains(c.only, kind.name) {
				continue
			}
			t.Run(c.id+"/"+kind.name, func(t *testing.T) {
				o := outcome{id: c.id, broker: kind.name, broken: []string{"it did not come to its end"}}
				defer func() {
					all = append(all, o)
					fmt.Fprintf(os.Stdout, "%-22s %-10s %-12s %s\n", c.id, kind.name, o, c.title)
					for _, b := range o.broken {
						fmt.Fprintf(os.Stdout, "    %s\n", b)
					}
				}()
				o = runCase(t, kind, c, 1)
			})
		}
	}
	fmt.Fprintln(os.Stdout, results(cases(), kinds, all, nil))
	if *table == "" {
		return
	}
	if err := writeTable(*table, func(before string) string { return results(cases(), kinds, all, cellsOf(before)) }); err != nil {
		t.Error(err)
	}
}

// results is the table of what came of the cases. What was not run this time has
// the result of before, by case and broker.
func results(all []faultCase, kinds []*brokerKind, outcomes []outcome, before map[string]string) string {
	var text strings.Builder
	text.WriteString("| case | what happens | promises | bound |")
	for _, k := range kinds {
		text.WriteString(" " + k.name + " |")
	}
	text.WriteString("\n| --- | --- | --- | --- |" + strings.Repeat(" --- |", len(kinds)) + "\n")
	for _, c := range all {
		row := fmt.Sprintf("| %s | %s | %s | %.0f s |", c.id, c.title, c.promises, c.bound.Seconds())
		known := false
		for _, k := range kinds {
			cell := before[c.id+"/"+k.name]
			if i := slices.IndexFunc(outcomes, func(o outcome) bool { return o.id == c.id && o.broker == k.name }); i >= 0 {
				cell = outcomes[i].String()
			}
			known = known || cell != ""
			row += " " + cell + " |"
		}
		if known {
			text.WriteString(row + "\n")
		}
	}
	return text.String()
}

// cellsOf reads a table of results.
func cellsOf(text string) map[string]string {
	cells, brokers := map[string]string{}, []string(nil)
	const fixed = 4 // Columns before the brokers'.
	for line := range strings.Lines(text) {
		row := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(row) <= fixed {
			continue
		}
		if brokers == nil {
			brokers = row[fixed:]
			continue
		}
		for i, cell := range row[fixed:] {
			if i < len(brokers) {
				cells[strings.TrimSpace(row[0])+"/"+strings.TrimSpace(brokers[i])] = strings.TrimSpace(cell)
			}
		}
	}
	return cells
}

// Markers of the table in a file.
const (
	tableBegins = "<!-- make faults writes what follows -->\n"
	tableEnds   = "<!-- make faults wrote this -->\n"
)

func writeTable(path string, text func(before string) string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, found := strings.Cut(string(content), tableBegins)
	old, after, ends := strings.Cut(rest, tableEnds)
	if !found || !ends {
		return fmt.Errorf("%s lacks the markers %q and %q", path, tableBegins, tableEnds)
	}
	return os.WriteFile(path, []byte(before+tableBegins+"\n"+text(old)+"\n"+tableEnds+after), 0o600)
}
