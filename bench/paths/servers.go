package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// The services that every path carries. Each has an outlet and an inlet of its
// own on the same nodes.
const (
	svcIperf = "iperf"
	svcRedis = "redis"
	svcHTTP  = "http"
	svcUtil  = "util"
	svcPG    = "postgres"
)

var services = []string{svcIperf, svcRedis, svcHTTP, svcUtil, svcPG}

// smallFile is the size of the file that nginx serves, in bytes.
const smallFile = 1024

// servers are the programs at the far end of all paths.
type servers struct {
	dir   string
	ports map[string]int
	procs []*proc
	env   []string
	pgDir string            // of the database, outside of dir, which its user cannot enter
	down  map[string]string // those that do not run: why not
}

// startServers starts redis, nginx, the util service, and PostgreSQL if have says so; those whose program is
// missing are left out, and those that fail are noted in down (their measurements are skipped by the caller). iperf3 is
// started for each measurement, since it serves one client at a time and a broken
// test would block it.
func startServers(ctx context.Context, dir string, have func(string) bool) (s *servers, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	s = &servers{dir: dir, down: map[string]string{}, env: childEnv(dir, tagVar+"="+dir+"/server")}
	defer func() {
		if err != nil {
			s.stop()
		}
	}()
	if s.ports, err = serviceMap(); err != nil {
		return s, err
	}
	self, err := os.Executable()
	if err != nil {
		return s, err
	}
	if err = s.spawn(self, "-util-server", strconv.Itoa(s.ports[svcUtil])); err != nil {
		return s, err
	}
	// try starts one of the servers, which listens on a port of its own.
	try := func(program, service string, start func() error) {
		if !have(program) {
			return
		}
		err := start()
		if err == nil {
			ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
			defer cancel()
			err = waitListening(ctx, s.procs[len(s.procs)-1:], s.ports[service])
		}
		if err != nil {
			s.down[program] = err.Error()
		}
	}
	try("redis-server", svcRedis, func() error {
		return s.spawnTool("redis-server", "--bind", "127.0.0.1", "--port", strconv.Itoa(s.ports[svcRedis]), "--save", "",
			"--appendonly", "no", "--dir", dir, "--daemonize", "no")
	})
	try("nginx", svcHTTP, s.spawnNginx)
	try(toolPG.program, svcPG, func() error { return s.startPostgres(ctx) })
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return s, waitListening(ctx, s.procs[:1], s.ports[svcUtil])
}

func (s *servers) spawn(name string, args ...string) error {
	p, err := spawn("server", filepath.Join(s.dir, filepath.Base(name)+".log"), s.env, name, args...)
	if err == nil {
		s.procs = append(s.procs, p)
	}
	return err
}

func (s *servers) spawnTool(name string, args ...string) error {
	path, err := lookTool(name)
	if err != nil {
		return err
	}
	return s.spawn(path, args...)
}

func (s *servers) spawnNginx() error {
	root := filepath.Join(s.dir, "www")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, "small"), make([]byte, smallFile), 0o644); err != nil {
		return err
	}
	// As root nginx would give its worker to another user, who cannot read a
	// private temporary directory.
	user := ""
	if os.Getuid() == 0 {
		user = "user root;\n"
	}
	conf := filepath.Join(s.dir, "nginx.conf")
	text := fmt.Sprintf(`%sdaemon off;
worker_processes 1;
pid %[2]s/nginx.pid;
error_log %[2]s/nginx-error.log;
events { worker_connections 4096; }
http {
  access_log off;
  client_body_temp_path %[2]s/t1; proxy_temp_path %[2]s/t2; fastcgi_temp_path %[2]s/t3;
  uwsgi_temp_path %[2]s/t4; scgi_temp_path %[2]s/t5;
  server { listen 127.0.0.1:%[3]d backlog=4096; root %[4]s; }
}
`, user, s.dir, s.ports[svcHTTP], root)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return err
	}
	return s.spawnTool("nginx", "-c", conf, "-p", s.dir, "-e", filepath.Join(s.dir, "nginx-error.log"))
}

func (s *servers) stop() {
	if s == nil {
		return
	}
	endAll(s.dir, s.procs)
	if s.pgDir != "" {
		if err := os.RemoveAll(s.pgDir); err != nil {
			logf("the database's directory: %v", err)
		}
	}
}
