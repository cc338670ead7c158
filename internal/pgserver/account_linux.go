package pgserver

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// numericAccount is used where the machine knows neither postgres nor nobody by name.
const numericAccount = 65534

// account is the user that the server programs run as. PostgreSQL refuses to run as root.
type account struct {
	uid, gid uint32
	drop     bool // this process is root and must change to uid and gid
}

func serverAccount() account {
	if os.Geteuid() != 0 {
		return account{uid: uint32(os.Geteuid()), gid: uint32(os.Getegid())}
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uidErr := strconv.ParseUint(u.Uid, 10, 32)
		gid, gidErr := strconv.ParseUint(u.Gid, 10, 32)
		if uidErr == nil && gidErr == nil && uid != 0 {
			return account{uid: uint32(uid), gid: uint32(gid), drop: true}
		}
	}
	return account{uid: numericAccount, gid: numericAccount, drop: true}
}

// sysProcAttr gives a child a process group of its own, so that Ctrl-C in a terminal reaches us and not the server
// behind our back, and has the kernel send it SIGQUIT, PostgreSQL's immediate shutdown, when we are gone.
//
// The kernel ties the latter to the thread that starts the child: see child.run.
func (a account) sysProcAttr() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGQUIT}
	if a.drop {
		attr.Credential = &syscall.Credential{Uid: a.uid, Gid: a.gid}
	}
	return attr
}

// own hands a path to the account.
func (a account) own(path string) error {
	if !a.drop {
		return nil
	}
	return os.Chown(path, int(a.uid), int(a.gid))
}

// errUnreachable means that the account may not enter a directory on the way to the one wanted.
var errUnreachable = errors.New("directory is not open to the account that runs PostgreSQL")

// canEnter tests that the account may walk into dir from the root directory on.
func (a account) canEnter(dir string) error {
	if !a.drop {
		return nil
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	for {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if !a.mayExecute(info) {
			return fmt.Errorf("%w: uid %d cannot enter %s: chmod o+x it, or set TMPDIR to another directory",
				errUnreachable, a.uid, dir)
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
		dir = filepath.Dir(dir)
	}
}

func (a account) mayExecute(info os.FileInfo) bool {
	mode := info.Mode().Perm()
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok:
		return false
	case st.Uid == a.uid:
		return mode&0o100 != 0
	case st.Gid == a.gid:
		return mode&0o010 != 0
	default:
		return mode&0o001 != 0
	}
}
