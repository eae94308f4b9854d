/* The yardstick of the benchmarks: what sending with C-STORE costs at the least, in C and with nothing but a socket.
 *
 *     yardstick [-w OPERATIONS] PORT FOLDER
 *
 * It sends the files of FOLDER in the order of their names over one association, as they lie on the disk, which a
 * library does, too: File Meta Information gives the UIDs, the file is mapped, and writev takes the command set, the
 * headers and the slices of the data set together. An answer is awaited after each object, or with -w (which is
 * proposed as the window) after as many. It prints a line of JSON: objects, bytes of data sets, the seconds and CPU
 * seconds from the first request to the last answer, and the seconds from before the connection to it.
 * What it does not do: check more of an answer than message ID and status, have a deadline, or go on after an error.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { PDUS = 256, HEAD = 4096, LARGEST = 1 << 30 };     /* PDUs a writev; bytes for the head of a file; of a PDU */

struct object { char *path; size_t data_set; int context; char sop_class[65], instance[65], syntax[65]; };

static int connection, objects;
static struct object *all;
static struct object *contexts[128];                     /* the first object of each; its ID is 2 n + 1 */
static int context_count;
static uint32_t max_pdu;

static _Noreturn void die(const char *what) {
    perror(what);
    exit(1);
}
static _Noreturn void refuse(const char *what) {
    fprintf(stderr, "yardstick: %s\n", what);
    exit(1);
}
static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}
static double cpu(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}
static unsigned big16(const uint8_t *p) { return p[0] << 8 | p[1]; }
static uint32_t big32(const uint8_t *p) { return (uint32_t)big16(p) << 16 | big16(p + 2); }
static unsigned little16(const uint8_t *p) { return p[0] | p[1] << 8; }
static uint32_t little32(const uint8_t *p) { return little16(p) | (uint32_t)little16(p + 2) << 16; }
static void put16(uint8_t *p, unsigned v) { p[0] = v >> 8; p[1] = v; }
static void put32(uint8_t *p, uint32_t v) { put16(p, v >> 16); put16(p + 2, v & 0xFFFF); }

static void write_all(struct iovec *parts, int count) {
    while (count) {
        ssize_t n = writev(connection, parts, count);
        if (n < 0) die("writev");
        for (; count && (size_t)n >= parts->iov_len; parts++, count--) n -= parts->iov_len;
        if (count) {
            parts->iov_base = (char *)parts->iov_base + n;
            parts->iov_len -= n;
        }
    }
}

static void read_all(uint8_t *to, size_t length) {
    while (length) {
        ssize_t n = recv(connection, to, length, 0);
        if (n <= 0) refuse("the connection ended");
        to += n;
        length -= n;
    }
}

/* --- files --------------------------------------------------------------------------------------------------------- */

static void keep_uid(char *to, const uint8_t *value, unsigned length) {
    if (length > 64) refuse("a UID is too long");
    memcpy(to, value, length);
    to[length] = 0;
}

static void read_head(struct object *object) {
    uint8_t head[HEAD];
    int file = open(object->path, O_RDONLY);
    if (file < 0) die(object->path);
    ssize_t size = read(file, head, sizeof head);
    close(file);
    if (size < 144 || memcmp(head + 128, "DICM", 4)) refuse("not a DICOM file");
    object->data_set = 144 + little32(head + 140);
    if (object->data_set > (size_t)size) refuse("File Meta Information is too long");
    for (uint8_t *p = head + 144; p < head + object->data_set;) {
        unsigned element = little16(p + 2), is_long = !memcmp(p + 4, "OB", 2) || !memcmp(p + 4, "UN", 2);
        unsigned length = is_long ? little32(p + 8) : little16(p + 6);
        p += is_long ? 12 : 8;
        if (element == 0x0002) keep_uid(object->sop_class, p, length);
        if (element == 0x0003) keep_uid(object->instance, p, length);
        if (element == 0x0010) keep_uid(object->syntax, p, length);
        p += length;
    }
    for (int n = 0;; n++) {
        if (n == context_count && context_count++ < 128) contexts[n] = object;
        if (n == 128) refuse("more than 128 presentation contexts");
        if (strcmp(contexts[n]->sop_class, object->sop_class) || strcmp(contexts[n]->syntax, object->syntax)) continue;
        object->context = 2 * n + 1;
        return;
    }
}

static int by_path(const void *a, const void *b) {
    return strcmp(((const struct object *)a)->path, ((const struct object *)b)->path);
}

static void find_files(const char *folder) {
    DIR *directory = opendir(folder);
    if (!directory) die(folder);
    for (struct dirent *entry; (entry = readdir(directory));) {
        if (entry->d_name[0] == '.') continue;
        all = realloc(all, (objects + 1) * sizeof *all);
        if (!all || asprintf(&all[objects++].path, "%s/%s", folder, entry->d_name) < 0) die("memory");
    }
    closedir(directory);
    qsort(all, objects, sizeof *all, by_path);
    for (int n = 0; n < objects; n++) read_head(&all[n]);
}

/* --- the association ----------------------------------------------------------------------------------------------- */

static uint8_t *put_item(uint8_t *p, unsigned type, const void *value, unsigned length) {
    p[0] = type;
    p[1] = 0;
    put16(p + 2, length);
    memmove(p + 4, value, length);
    return p + 4 + length;
}

static uint8_t *put_text(uint8_t *p, unsigned type, const char *text) { return put_item(p, type, text, strlen(text)); }

static void associate(int port, int window) {
    static uint8_t pdu[1 << 16];
    struct sockaddr_in address = { AF_INET, htons(port), { htonl(INADDR_LOOPBACK) }, { 0 } };
    int on = 1;
    connection = socket(AF_INET, SOCK_STREAM, 0);
    if (connection < 0 || connect(connection, (void *)&address, sizeof address)) die("connect");
    setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    pdu[0] = 1;
    pdu[7] = 1;
    memcpy(pdu + 10, "ANY-SCP         YARDSTICK       ", 32);
    uint8_t *p = put_text(pdu + 74, 0x10, "1.2.840.10008.3.1.1.1");
    for (int n = 0; n < context_count; n++) {
        uint8_t value[256] = { 2 * n + 1 }, *v = put_text(value + 4, 0x30, contexts[n]->sop_class);
        p = put_item(p, 0x20, value, put_text(v, 0x40, contexts[n]->syntax) - value);
    }
    uint8_t user[128], *u = put_item(user, 0x51, "\0\0\x40\0", 4);
    u = put_text(u, 0x52, "2.25.141421356237309504880168872420969807857");
    if (window > 1) u = put_item(u, 0x53, (uint8_t[]) { window >> 8, window, 0, 1 }, 4);
    p = put_item(p, 0x50, user, u - user);
    put32(pdu + 2, p - pdu - 6);
    write_all(&(struct iovec) { pdu, p - pdu }, 1);

    read_all(pdu, 6);
    uint32_t length = big32(pdu + 2);
    int granted = 1;
    if (pdu[0] != 2 || length > sizeof pdu) refuse("the association was not accepted");
    read_all(pdu, length);
    for (p = pdu + 68; p < pdu + length;) {
        if (p[0] == 0x21 && p[6]) refuse("a presentation context was not accepted");
        if (p[0] == 0x51) max_pdu = big32(p + 4);
        if (p[0] == 0x53) granted = big16(p + 4);
        p += p[0] == 0x50 ? 4 : 4 + big16(p + 2);        /* into the user information */
    }
    if (granted && granted < window) refuse("the window was not accepted");
    if (!max_pdu || max_pdu > LARGEST) max_pdu = LARGEST;
}

/* --- objects ------------------------------------------------------------------------------------------------------- */

static uint8_t *put_element(uint8_t *p, unsigned element, const void *value, unsigned length, unsigned padded) {
    memset(p, 0, 8 + padded);
    put16(p + 2, element >> 8 | (element & 0xFF) << 8);
    p[4] = padded;
    memcpy(p + 8, value, length);
    return p + 8 + padded;
}

static uint8_t *put_number(uint8_t *p, unsigned element, unsigned value) {
    return put_element(p, element, (uint8_t[]) { value, value >> 8 }, 2, 2);
}

static uint8_t *put_uid(uint8_t *p, unsigned element, const char *uid) {
    return put_element(p, element, uid, strlen(uid), (strlen(uid) + 1) & ~1u);
}

static void put_header(uint8_t *p, uint32_t length, int context, int control) {
    p[0] = 4;
    p[1] = 0;
    put32(p + 2, length + 6);
    put32(p + 6, length + 2);
    p[10] = context;
    p[11] = control;
}

static size_t put_request(uint8_t *pdu, const struct object *object, unsigned message_id) {
    uint8_t *p = put_element(pdu + 12, 0x0000, "", 0, 4);
    p = put_uid(p, 0x0002, object->sop_class);
    p = put_number(p, 0x0100, 0x0001);
    p = put_number(p, 0x0110, message_id);
    p = put_number(p, 0x0700, 0);
    p = put_number(p, 0x0800, 1);
    p = put_uid(p, 0x1000, object->instance);
    pdu[20] = p - pdu - 24;
    put_header(pdu, p - pdu - 12, object->context, 3);
    return p - pdu;
}

static size_t send_object(const struct object *object, unsigned message_id) {
    static uint8_t request[512], headers[PDUS][12];
    static struct iovec parts[1 + 2 * PDUS];
    struct stat status;
    int file = open(object->path, O_RDONLY), count = 1;
    if (file < 0 || fstat(file, &status)) die(object->path);
    uint8_t *map = mmap(NULL, status.st_size, PROT_READ, MAP_SHARED | MAP_POPULATE, file, 0);
    if (map == MAP_FAILED) die("mmap");
    close(file);
    parts[0] = (struct iovec) { request, put_request(request, object, message_id) };
    for (size_t at = object->data_set, end = status.st_size; at < end;) {
        size_t length = end - at < max_pdu - 6 ? end - at : (max_pdu - 6) & ~1u;
        uint8_t *header = headers[count / 2];
        put_header(header, length, object->context, at + length == end ? 2 : 0);
        parts[count++] = (struct iovec) { header, 12 };
        parts[count++] = (struct iovec) { map + at, length };
        at += length;
        if (at < end && count < 2 * PDUS) continue;
        write_all(parts, count);
        count = 0;
    }
    munmap(map, status.st_size);
    return status.st_size - object->data_set;
}

static void read_answer(unsigned message_id) {
    uint8_t pdu[1024];
    int fits = 0, status = -1;
    read_all(pdu, 6);
    uint32_t length = big32(pdu + 2);
    if (pdu[0] != 4 || length > sizeof pdu) refuse("no answer, but another PDU");
    read_all(pdu, length);
    for (uint8_t *p = pdu + 6; p + 10 <= pdu + length; p += 8 + little32(p + 4)) {
        if (little16(p + 2) == 0x0120) fits = little16(p + 8) == (message_id & 0xFFFF);
        if (little16(p + 2) == 0x0900) status = little16(p + 8);
    }
    if (!fits || status) refuse("the answer does not fit, or is a refusal");
}

int main(int argc, char **argv) {
    int window = 1, option;
    while ((option = getopt(argc, argv, "w:")) != -1) {
        if (option != 'w') return 2;
        window = atoi(optarg);
    }
    if (argc - optind != 2) refuse("usage: yardstick [-w OPERATIONS] PORT FOLDER");
    signal(SIGPIPE, SIG_IGN);
    find_files(argv[optind + 1]);
    double connecting = now();
    associate(atoi(argv[optind]), window);
    double start = now(), cpu_before = cpu();
    uint64_t bytes = 0;
    for (int n = 0; n < objects + window; n++) {
        if (n >= window && n - window < objects) read_answer(n - window);
        if (n < objects) bytes += send_object(&all[n], n & 0xFFFF);
    }
    double end = now(), cpu_after = cpu();
    uint8_t released[10];
    write_all(&(struct iovec) { "\5\0\0\0\0\4\0\0\0\0", 10 }, 1);
    read_all(released, sizeof released);
    printf("{\"objects\": %d, \"bytes\": %llu, \"seconds\": %.6f, \"cpu\": %.6f, \"since_connecting\": %.6f}\n",
           objects, (unsigned long long)bytes, end - start, cpu_after - cpu_before, end - connecting);
    return 0;
}
