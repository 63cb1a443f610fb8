package portal

import (
	"reflect"
	"testing"
	"time"
)

// TestLimitsDefaults: what is left out has the default that its comment says, and what is given stays.
func TestLimitsDefaults(t *testing.T) {
	want := Limits{
		Window: 512 << 10, MaxWindow: 64 << 20, Budget: 256 << 20, KeepBudget: 256 << 20, LeastWindow: 32 << 10, HighWater: 1 << 20, StallTimeout: 5 * time.Second,
		OpenTimeout: 20 * time.Second, FinishTimeout: 5 * time.Second, HoldClients: 1024, HoldTimeout: 30 * time.Second, Connections: 1 << 16, OutletConnections: 1000,
		PayloadSize: 64 << 10,
	}
	if got := (Limits{}).WithDefaults(); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for i := range reflect.TypeFor[Limits]().NumField() {
		var given Limits
		reflect.ValueOf(&given).Elem().Field(i).SetInt(7)
		if got := given.WithDefaults(); reflect.ValueOf(got).Field(i).Int() != 7 {
			t.Errorf("%s: given 7, got %v", reflect.TypeFor[Limits]().Field(i).Name, reflect.ValueOf(got).Field(i))
		}
	}
}
