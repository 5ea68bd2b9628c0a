package kube

import (
	"context"
	"errors"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	workv1 "open-cluster-management.io/api/work/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// ErrRewound is wrapped by Guard when the API server went back in time.
var ErrRewound = errors.New("the API server's resource versions went back, as after a restore from a backup")

const (
	// guardInterval is how often the API server is asked how far it is.
	guardInterval = 10 * time.Second

	// guardRetry is the same while it does not answer: a restore has it away, and
	// with every write after its return its versions come closer to those before.
	guardRetry = time.Second

	guardTimeout = 10 * time.Second
)

// Guard returns an error that wraps ErrRewound when the API server has gone back
// in time, and nil when ctx ends. Caches do not hear of what a restore changed:
// a watch that goes on from a version that is yet to come is silent until then.
// Only another process, or one with new caches, knows what there is.
//
// An API server that answers a list without a version says how far its store is,
// which no version that it ever gave out is ahead of. Versions that cannot be
// compared are left alone.
func (s *Source) Guard(ctx context.Context) error {
	for {
		wait := s.guarding
		err := s.checkVersions(ctx)
		switch {
		case errors.Is(err, ErrRewound):
			return err
		case err != nil:
			wait = min(guardRetry, s.guarding)
			s.log.Debug("the API server does not say how far it is, asking again", "err", err, "after", wait)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
	}
}

// checkVersions fails with ErrRewound if the API server is behind what it had
// said before. It is asked twice: what follows is dear.
func (s *Source) checkVersions(ctx context.Context) error {
	var seen, now string
	for range 2 {
		seen = s.latestVersion()
		var err error
		if now, err = s.currentVersion(ctx); err != nil {
			return err
		}
		if !earlier(now, seen) {
			s.reached(now)
			return nil
		}
	}
	return fmt.Errorf("%w: it is at %s, and was at %s", ErrRewound, now, seen)
}

// currentVersion is how far the API server's store is now.
func (s *Source) currentVersion(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, guardTimeout)
	defer cancel()
	works := metav1.PartialObjectMetadataList{}
	works.SetGroupVersionKind(schema.GroupVersionKind{
		Group: workv1.GroupVersion.Group, Version: workv1.GroupVersion.Version, Kind: "ManifestWorkList",
	})
	// Not from a cache, neither of this process nor, for want of a version, an
	// older state of the API server's.
	if err := s.live.List(ctx, &works, client.Limit(1)); err != nil {
		return "", fmt.Errorf("list one ManifestWork: %w", err)
	}
	return works.ResourceVersion, nil
}

// latestVersion is the highest that the API server is known to have had.
func (s *Source) latestVersion() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.latest
}

func (s *Source) reached(version string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reachedLocked(version)
}

// reachedLocked notes a version that the API server had. The caller holds mu.
func (s *Source) reachedLocked(version string) {
	if s.latest == "" || earlier(s.latest, version) {
		s.latest = version
	}
}

// earlier says that a version is below another. Where versions cannot be
// compared, none is.
func earlier(version, other string) bool {
	order, err := resourceversion.CompareResourceVersion(version, other)
	return err == nil && order < 0
}
