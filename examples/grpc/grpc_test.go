// Package grpc is gRPC between two members: a server without a port, and a client that dials it by name. TLS is not needed: the connection is encrypted and both
// ends are authenticated.
package grpc

import (
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	health1 "google.golang.org/grpc/health/grpc_health_v1"

	"context"

	"sallyport/examples/internal/members"
	"sallyport/internal/testproject"
)

func TestGRPC(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	p, err := testproject.Start(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	there, here := members.Open(ctx, t, p, map[string]string{"ockam-relay": "*"}), members.Open(ctx, t, p, nil)
	l, err := there.Listen(ctx, "health")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	health1.RegisterHealthServer(server, health.NewServer())
	go server.Serve(l)
	defer server.Stop()

	conn, err := grpc.NewClient("passthrough:///health", grpc.WithContextDialer(here.Dial), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	answer, err := health1.NewHealthClient(conn).Check(ctx, &health1.HealthCheckRequest{})
	if err != nil || answer.Status != health1.HealthCheckResponse_SERVING {
		t.Fatal(answer, err)
	}
}
