# A server that sends back what it gets, and clients of it.
#   echo.py serve PORT          until it is killed
#   echo.py bulk PORT MIB       random bytes there and back, compared
#   echo.py hold PORT DIR       one connection with a line again and again; DIR/count is how many came back, DIR/stop ends it
import os, socket, sys, threading, time

what, port = sys.argv[1], int(sys.argv[2])


def answer(c):
    with c:
        while data := c.recv(1 << 16):
            c.sendall(data)


if what == "serve":
    server = socket.create_server(("127.0.0.1", port))
    while True:
        threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()

c = socket.create_connection(("127.0.0.1", port), timeout=60)
if what == "bulk":
    data = os.urandom(int(sys.argv[3]) << 20)

    def send():
        c.sendall(data)
        c.shutdown(socket.SHUT_WR)

    threading.Thread(target=send).start()
    came = bytearray()
    while part := c.recv(1 << 16):
        came += part
    if came != data:
        sys.exit(f"{len(data)} bytes were sent, {len(came)} came back{', others' if len(came) == len(data) else ''}")
    sys.exit(0)

n = 0
while not os.path.exists(sys.argv[3] + "/stop"):
    line = f"line {n}\n".encode()
    c.sendall(line)
    back = b""
    while len(back) < len(line):
        part = c.recv(len(line) - len(back))
        if not part:
            sys.exit(f"the connection ended after {n} lines")
        back += part
    if back != line:
        sys.exit(f"{line} came back as {back}")
    n += 1
    with open(sys.argv[3] + "/new", "w") as f:
        f.write(str(n))
    os.replace(sys.argv[3] + "/new", sys.argv[3] + "/count")
    time.sleep(0.05)
