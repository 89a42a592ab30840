// Package systemd holds the units that triggerd runs by. It has no code of its own: its tests hold the units to what systemd
// takes, to the score of their sandbox, and to a reason above every line; those with the build tag system run inside a
// booted container, where the package is installed (make test-system).
package systemd
