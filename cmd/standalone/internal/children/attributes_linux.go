package children

import "syscall"

// attributes keeps a terminal's interrupt from the child, which its parent
// stops in order, and kills it when this process dies.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
