package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"

	"github.com/fleetcast-io/fleetcast/pkg/api/apitest"
)

// TestPoliciesOfTwoHubs: a hub removes only what it installed itself, and what
// somebody else removed comes back.
func TestPoliciesOfTwoHubs(t *testing.T) {
	server := apitest.Start(t, apitest.Hub)
	clients, err := kubernetes.NewForConfig(server.Config())
	if err != nil {
		t.Fatal(err)
	}
	bindings := clients.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings()
	names := func() (names []string, err error) {
		all, err := bindings.List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return nil, err
		}
		for i := range all.Items {
			names = append(names, all.Items[i].Name)
		}
		return names, nil
	}
	both := []string{"manifestworkreplicasets.work.fleetcast.io", "manifestworks.work.fleetcast.io"}
	eventually := func(what string, want []string) {
		t.Helper()
		last := errors.New("nobody looked")
		err := wait.PollUntilContextTimeout(t.Context(), 20*time.Millisecond, time.Minute, true, func(context.Context) (bool, error) {
			got, err := names()
			last = err
			if diff := cmp.Diff(want, got); err == nil && diff != "" {
				last = fmt.Errorf("bindings (-want +got):\n%s", diff)
			}
			return last == nil, nil
		})
		if err != nil {
			t.Fatalf("%s: %v", what, last)
		}
	}
	hub := func(id string, installs bool) *Config {
		c := Default()
		c.SourceID, c.InstallPolicies, c.Log = id, installs, slog.New(slog.DiscardHandler)
		return &c
	}

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		hub("one", true).keepPoliciesEvery(ctx, server.Config(), newHealth(), 100*time.Millisecond)
	}()
	eventually("the one hub installs them", both)
	if err := bindings.Delete(t.Context(), both[1], metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	eventually("what somebody removed comes back", both)
	cancel()
	<-done

	if err := hub("other", false).applyPolicies(t.Context(), server.Config()); err != nil {
		t.Errorf("the other hub: %v", err)
	}
	if got, err := names(); err != nil || !cmp.Equal(got, both) {
		t.Errorf("the other hub left %v of %v (%v)", got, both, err)
	}
	if err := hub("one", false).applyPolicies(t.Context(), server.Config()); err != nil {
		t.Errorf("the one hub: %v", err)
	}
	if got, err := names(); err != nil || len(got) != 0 {
		t.Errorf("the hub that installed them left %v (%v)", got, err)
	}
}
