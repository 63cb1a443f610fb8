// Package wire joins network namespaces by a line with delay, jitter, a rate, a queue, loss and reordering, all in user space: it
// needs root and /dev/net/tun, and nothing of the kernel's traffic control.
//
// At each end of a line is a TUN device. The kernel hands out what TCP sends in packets of up to 64 KiB, with a header that says how
// they are to be cut into segments (virtio_net_hdr), and takes the same. So a line costs two system calls for 64 KiB. What a line does, it does
// to segments: where one is lost, the packet is cut.
package wire
