// Package systemd holds the units that triggerd runs by. It has no code of its own: its tests hold the units to what systemd
// takes, to the score of their sandbox, and to a reason above every line. `make test-system` installs the package in a
// booted container and tries it there.
package systemd
