// Package monitoring has nothing but tests of the rules and the dashboard beside it.
package monitoring
