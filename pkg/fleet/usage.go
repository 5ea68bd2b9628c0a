package fleet

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// usage is what processes took up to a moment.
type usage struct {
	at                time.Time
	self, broker      Process
	mallocs, heap     uint64
	toClusters, toHub Traffic
}

// A Process is what one process took, as Linux tells in /proc; all is zero
// elsewhere.
type Process struct {
	// CPU is processor time in seconds, of the kernel's for it as well.
	CPU float64 `json:"cpuSeconds"`
	// Resident is memory in bytes, Peak the most that it ever was.
	Resident int64 `json:"residentBytes"`
	Peak     int64 `json:"peakBytes"`
}

// ticks is how many units of /proc's processor times make a second: Linux has
// fixed it for programs (USER_HZ), whatever the kernel was built with.
const ticks = 100

// processUsage reads what a process took: its PID, or "self".
func processUsage(pid string) Process {
	var p Process
	dir := filepath.Join("/proc", pid)
	if raw, err := os.ReadFile(filepath.Join(dir, "stat")); err == nil {
		// The name of the program, in parentheses, may hold spaces. User and system
		// time are fields 14 and 15, counted from 1 (proc(5)).
		fields := bytes.Fields(raw[bytes.LastIndexByte(raw, ')')+1:])
		if len(fields) > 12 {
			user, _ := strconv.ParseFloat(string(fields[11]), 64)
			system, _ := strconv.ParseFloat(string(fields[12]), 64)
			p.CPU = (user + system) / ticks
		}
	}
	if raw, err := os.ReadFile(filepath.Join(dir, "status")); err == nil {
		for line := range strings.Lines(string(raw)) {
			fields := strings.Fields(line)
			if len(fields) < 2 {
				continue
			}
			kib, _ := strconv.ParseInt(fields[1], 10, 64)
			switch fields[0] {
			case "VmRSS:":
				p.Resident = kib << 10
			case "VmHWM:":
				p.Peak = kib << 10
			}
		}
	}
	return p
}

func (p Process) since(before Process) Process {
	p.CPU -= before.CPU
	return p
}
