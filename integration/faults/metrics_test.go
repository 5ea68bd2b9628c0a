package faults

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// A sample is one line of a program's metrics.
type sample struct {
	name   string
	labels map[string]string
	value  float64
}

var (
	sampleLine  = regexp.MustCompile(`^([a-zA-Z_:]\w*)(?:\{(.*)\})? (\S+)$`)
	sampleLabel = regexp.MustCompile(`(\w+)="((?:[^"\\]|\\.)*)"`)
)

// scrape reads the metrics of a program.
func scrape(address string) ([]sample, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", http.NoBody)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, fmt.Errorf("read metrics: %w", err)
	}
	defer response.Body.Close()
	var all []sample
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		m := sampleLine.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		value, err := strconv.ParseFloat(m[3], 64)
		if err != nil {
			continue
		}
		s := sample{name: m[1], labels: map[string]string{}, value: value}
		for _, l := range sampleLabel.FindAllStringSubmatch(m[2], -1) {
			s.labels[l[1]] = l[2]
		}
		all = append(all, s)
	}
	return all, lines.Err()
}

// sum adds up the samples of a metric that have all these labels, given as
// name=value.
func sum(all []sample, name string, labels ...string) float64 {
	total := 0.0
next:
	for _, s := range all {
		if s.name != name {
			continue
		}
		for _, l := range labels {
			label, value, _ := strings.Cut(l, "=")
			if s.labels[label] != value {
				continue next
			}
		}
		total += s.value
	}
	return total
}

// usage is what a program takes of the machine.
type usage struct {
	goroutines float64
	bytes      float64 // Resident.
}

func usageOf(address string) (usage, error) {
	all, err := scrape(address)
	if err != nil {
		return usage{}, err
	}
	return usage{goroutines: sum(all, "go_goroutines"), bytes: sum(all, "process_resident_memory_bytes")}, nil
}

// probe asks a program how it is.
func probe(ctx context.Context, address, path string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, http.NoBody)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(response.Body)
		return fmt.Errorf("%s: %s", response.Status, text)
	}
	return nil
}
