// Package demo shows one work on its way from a hub to two clusters and back:
// created, updated, put back after somebody changed it, and deleted. It drives
// what users have, the fleetcast program, and looks at the clusters to see
// whether what it says is so.
package demo

import (
	"bytes"
	"context"
	_ "embed" // The manifests.
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

var (
	//go:embed v1.yaml
	v1 []byte
	//go:embed v2.yaml
	v2 []byte
)

// workName is the name of the work on every cluster.
const workName = "shop"

// patience bounds each step. A step takes about a second.
const patience = 2 * time.Minute

// A Fleet is what the demo shows the work on.
type Fleet struct {
	// CLI is the path of the fleetcast program.
	CLI string
	// Dir is where the demo keeps its manifests.
	Dir string
	// HubKubeconfig, and the Kubeconfigs of Clusters by name.
	HubKubeconfig string
	Clusters      []string
	Kubeconfigs   map[string]string
}

// A demo is one run.
type demo struct {
	Fleet
	out      io.Writer
	clusters map[string]*cluster
}

// Run shows everything and returns nil, or what was not as it should be.
// Progress goes to out.
func Run(ctx context.Context, f Fleet, out io.Writer) error {
	d := &demo{Fleet: f, out: out, clusters: map[string]*cluster{}}
	for _, name := range f.Clusters {
		c, err := openCluster(f.Kubeconfigs[name])
		if err != nil {
			return fmt.Errorf("cluster %s: %w", name, err)
		}
		d.clusters[name] = c
	}
	if err := errors.Join(
		os.WriteFile(filepath.Join(f.Dir, "v1.yaml"), v1, 0o600),
		os.WriteFile(filepath.Join(f.Dir, "v2.yaml"), v2, 0o600),
	); err != nil {
		return fmt.Errorf("write the demo's manifests: %w", err)
	}
	steps := []struct {
		title string
		run   func(context.Context) error
	}{
		{"A work goes to each cluster: a namespace, settings, a deployment, a CRD and an object of it", d.create},
		{"The work is updated on the hub", d.update},
		{"Somebody changes and removes things on a cluster, and the agent puts them back", d.drift},
		{"The work is deleted on the hub", d.remove},
		{"Nothing is left", d.nothingLeft},
	}
	for i, step := range steps {
		fmt.Fprintf(out, "\n== %d. %s\n", i+1, step.title)
		ctx, cancel := context.WithTimeout(ctx, patience)
		err := step.run(ctx)
		cancel()
		if err != nil {
			return fmt.Errorf("step %d (%s): %w", i+1, step.title, err)
		}
	}
	return nil
}

func (d *demo) create(ctx context.Context) error {
	for _, name := range d.Clusters {
		if err := d.cli(ctx, "create", "work", workName, "--cluster", name, "-f", filepath.Join(d.Dir, "v1.yaml"), "--wait"); err != nil {
			return err
		}
	}
	return d.show(ctx, version1)
}

func (d *demo) update(ctx context.Context) error {
	for _, name := range d.Clusters {
		args := []string{"create", "work", workName, "--cluster", name, "-f", filepath.Join(d.Dir, "v2.yaml"), "--update", "--wait"}
		if err := d.cli(ctx, args...); err != nil {
			return err
		}
	}
	return d.show(ctx, version2)
}

// show prints the hub's table and compares the clusters with it.
func (d *demo) show(ctx context.Context, want []field) error {
	if err := d.cli(ctx, "get", "works"); err != nil {
		return err
	}
	for _, name := range d.Clusters {
		var seen []string
		for _, f := range want {
			if err := d.clusters[name].check(ctx, f); err != nil {
				return fmt.Errorf("cluster %s: %w", name, err)
			}
			seen = append(seen, f.String())
		}
		fmt.Fprintf(d.out, "seen on %s: %s\n", name, strings.Join(seen, ", "))
	}
	return nil
}

func (d *demo) drift(ctx context.Context) error {
	name := d.Clusters[0]
	c := d.clusters[name]
	fmt.Fprintf(d.out, "on %s: the settings are changed to say \"closed\", and the deployment is removed\n", name)
	started := time.Now()
	if err := c.vandalise(ctx); err != nil {
		return fmt.Errorf("cluster %s: %w", name, err)
	}
	for _, f := range version2 {
		if err := until(ctx, func() error { return c.check(ctx, f) }); err != nil {
			return fmt.Errorf("cluster %s: not put back: %w", name, err)
		}
	}
	fmt.Fprintf(d.out, "on %s: everything was put back within %.1f s\n", name, time.Since(started).Seconds())
	return nil
}

func (d *demo) remove(ctx context.Context) error {
	for _, name := range d.Clusters {
		if err := d.cli(ctx, "delete", "work", workName, "--cluster", name, "--wait"); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) nothingLeft(ctx context.Context) error {
	if err := d.cli(ctx, "get", "works"); err != nil {
		return err
	}
	for _, name := range d.Clusters {
		for _, f := range version2 {
			if err := until(ctx, func() error { return d.clusters[name].absent(ctx, f) }); err != nil {
				return fmt.Errorf("cluster %s: %w", name, err)
			}
		}
		if err := d.clusters[name].noAppliedWorks(ctx); err != nil {
			return fmt.Errorf("cluster %s: %w", name, err)
		}
		fmt.Fprintf(d.out, "seen on %s: no namespace, no objects, no trace of the work\n", name)
	}
	return nil
}

// cli runs the fleetcast program against the hub and shows what a user would
// see.
func (d *demo) cli(ctx context.Context, args ...string) error {
	fmt.Fprintf(d.out, "$ fleetcast %s\n", strings.Join(args, " "))
	cmd := exec.CommandContext(ctx, d.CLI, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+d.HubKubeconfig)
	var failure bytes.Buffer
	cmd.Stdout, cmd.Stderr = d.out, io.MultiWriter(d.out, &failure)
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("fleetcast %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(failure.String()))
	}
	return nil
}

// until repeats try until it succeeds or ctx ends.
func until(ctx context.Context, try func() error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}
