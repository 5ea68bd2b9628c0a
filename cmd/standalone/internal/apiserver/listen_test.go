package apiserver

import (
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"
)

func TestListen(t *testing.T) {
	loopback := net.IPv4(127, 0, 0, 1)
	taken, err := listen(t.Context(), loopback, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	port := taken.Addr().(*net.TCPAddr).Port
	if _, err := listen(t.Context(), loopback, 0, port); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "--port") {
		t.Errorf("the port of the last run is taken: got %v, want what to do about it", err)
	}
	if _, err := listen(t.Context(), loopback, port, 0); !errors.Is(err, syscall.EADDRINUSE) || strings.Contains(err.Error(), "--port") {
		t.Errorf("the port that was asked for is taken: got %v", err)
	}
	free, err := listen(t.Context(), loopback, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	other := free.Addr().(*net.TCPAddr).Port
	_ = free.Close()
	asked, err := listen(t.Context(), loopback, other, port)
	if err != nil {
		t.Fatalf("the port that was asked for is free: %v", err)
	}
	_ = asked.Close()
	_ = taken.Close()
}

func TestClientHost(t *testing.T) {
	for bind, want := range map[string]string{
		"127.0.0.1": "https://127.0.0.1:1",
		"192.0.2.7": "https://192.0.2.7:1",
		"0.0.0.0":   "https://127.0.0.1:1",
		"::":        "https://[::1]:1",
		"::1":       "https://[::1]:1",
	} {
		if got := clientHost(net.ParseIP(bind), 1); got != want {
			t.Errorf("clients of a server on %s: got %s, want %s", bind, got, want)
		}
	}
}
