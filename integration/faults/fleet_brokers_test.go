//go:build faults

package faults

import (
	"fmt"
	"os"
	"testing"
	"time"
)

// TestFleetMosquitto and TestFleetNATS put 1,000 clusters with 100 works each,
// or FLEETCAST_FLEET=CLUSTERSxWORKS, through restarts and the loss of a broker
// that users run.
func TestFleetMosquitto(t *testing.T) {
	clusters, works := fleetSize(t)
	provesFleet(t, mosquitto, clusters, works, 10*time.Second)
}

// TestFleetNATS is TestFleetMosquitto over nats-server.
func TestFleetNATS(t *testing.T) {
	clusters, works := fleetSize(t)
	provesFleet(t, nats, clusters, works, 10*time.Second)
}

// fleetSize is how many clusters with how many works each the matrix has.
func fleetSize(t testing.TB) (clusters, works int) {
	t.Helper()
	clusters, works = 1000, 100
	if s := os.Getenv("FLEETCAST_FLEET"); s != "" {
		if _, err := fmt.Sscanf(s, "%dx%d", &clusters, &works); err != nil {
			t.Fatalf("FLEETCAST_FLEET is CLUSTERSxWORKS, not %q: %v", s, err)
		}
	}
	return clusters, works
}
