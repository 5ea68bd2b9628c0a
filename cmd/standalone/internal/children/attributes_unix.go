//go:build unix && !linux

package children

import "syscall"

// attributes keeps a terminal's interrupt from the child, which its parent
// stops in order. When this process dies, the end of its standard input tells it.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
