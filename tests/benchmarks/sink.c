/* The receiver of the benchmarks: a C-STORE SCP that checks what it is sent, counts it, and throws it away.
 *
 *     sink [-p BYTES] [-d MILLISECONDS] [-w OPERATIONS] [-t PEM]
 *
 *     -p  the maximum length of a PDU to it (16384); 0 is none
 *     -d  how long after its request an answer leaves; those of several requests overlap
 *     -w  the most operations that it lets a peer invoke that proposes a window; else such a peer gets no window
 *     -t  TLS 1.3, with the certificate and the key in this file; libssl is looked for at run time
 *
 * It listens on 127.0.0.1, prints the port, and at SIGTERM a line of JSON: objects, bytes of data sets, associations,
 * peers that broke the protocol, when the first byte of the first came and when the last answer left (CLOCK_MONOTONIC).
 * A peer that breaks the protocol is aborted, and standard error says why. TCP_NODELAY is on.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { ROOM = 1 << 18, COMMAND_ROOM = 2048, ANSWER_ROOM = 320, MOST_WAITING = 1024 };
enum { COMMAND = 1, LAST = 2 };                          /* message control header */
enum { C_STORE_RQ = 0x0001, C_ECHO_RQ = 0x0030, NO_DATA_SET = 0x0101 };

static uint32_t max_pdu = 16384;
static double delay;
static int window = -1;
static void *tls;                                        /* SSL_CTX */

static struct { uint64_t objects, bytes, associations, broken; double first_byte, last_answer; char cipher[96]; } total;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of `total` */

struct answer { double due; unsigned length; uint8_t bytes[ANSWER_ROOM]; };

struct association {
    int socket;
    void *ssl;
    uint8_t room[ROOM];                                  /* what was received, and not taken yet: from begin to end */
    size_t begin, end;
    uint8_t accepted[256];                               /* presentation context IDs */
    uint8_t command[COMMAND_ROOM];
    unsigned command_length;
    int context;                                         /* of the message that is coming in; 0 between messages */
    int expects_data_set, has_carried;                   /* has_carried: a message has begun */
    uint64_t data_set;                                   /* bytes of it so far */
    char sop_class[65], sop_instance[65];
    unsigned field, message_id;
    struct answer waiting[MOST_WAITING];
    unsigned oldest, next;                               /* of these, modulo MOST_WAITING */
};

/* --- TLS, by the few functions that it takes; their declarations are libssl's, of all versions since 1.1.1 --------- */

static const void *(*TLS_server_method)(void);
static void *(*SSL_CTX_new)(const void *);
static long (*SSL_CTX_ctrl)(void *, int, long, void *);
static int (*SSL_CTX_use_certificate_chain_file)(void *, const char *);
static int (*SSL_CTX_use_PrivateKey_file)(void *, const char *, int);
static int (*SSL_CTX_set_ciphersuites)(void *, const char *);
static void (*SSL_CTX_set_default_read_buffer_len)(void *, size_t);
static void *(*SSL_new)(void *);
static int (*SSL_set_fd)(void *, int);
static int (*SSL_accept)(void *);
static int (*SSL_read)(void *, void *, int);
static int (*SSL_write)(void *, const void *, int);
static int (*SSL_shutdown)(void *);
static void (*SSL_free)(void *);
static const char *(*SSL_get_version)(const void *);
static const void *(*SSL_get_current_cipher)(const void *);
static const char *(*SSL_CIPHER_get_name)(const void *);

static _Noreturn void die(const char *what) {
    fprintf(stderr, "sink: %s\n", what);
    exit(2);
}

static void open_tls(const char *pem) {
    enum { SET_READ_AHEAD = 41, SET_MIN_PROTO_VERSION = 123, TLS_1_3 = 0x0304, PEM = 1 };
    void *library = dlopen("libssl.so.3", RTLD_NOW);
    if (!library) library = dlopen("libssl.so.1.1", RTLD_NOW);
    if (!library) die("there is no libssl");
#define FIND(name) if (!(*(void **)&name = dlsym(library, #name))) die("libssl has no " #name)
    FIND(TLS_server_method); FIND(SSL_CTX_new); FIND(SSL_CTX_ctrl); FIND(SSL_CTX_use_certificate_chain_file);
    FIND(SSL_CTX_use_PrivateKey_file); FIND(SSL_CTX_set_ciphersuites); FIND(SSL_CTX_set_default_read_buffer_len);
    FIND(SSL_new); FIND(SSL_set_fd); FIND(SSL_accept); FIND(SSL_read); FIND(SSL_write); FIND(SSL_shutdown);
    FIND(SSL_free); FIND(SSL_get_version); FIND(SSL_get_current_cipher); FIND(SSL_CIPHER_get_name);
    tls = SSL_CTX_new(TLS_server_method());
    SSL_CTX_ctrl(tls, SET_MIN_PROTO_VERSION, TLS_1_3, NULL);
    SSL_CTX_ctrl(tls, SET_READ_AHEAD, 1, NULL);
    SSL_CTX_set_default_read_buffer_len(tls, ROOM);
    if (SSL_CTX_set_ciphersuites(tls, "TLS_AES_256_GCM_SHA384") != 1  /* one for all, so that all do the same work */
        || SSL_CTX_use_certificate_chain_file(tls, pem) != 1 || SSL_CTX_use_PrivateKey_file(tls, pem, PEM) != 1)
        die("the TLS file cannot be used");
}

/* --- bytes --------------------------------------------------------------------------------------------------------- */

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}
static unsigned big16(const uint8_t *p) { return p[0] << 8 | p[1]; }
static uint32_t big32(const uint8_t *p) { return (uint32_t)big16(p) << 16 | big16(p + 2); }
static unsigned little16(const uint8_t *p) { return p[0] | p[1] << 8; }
static uint32_t little32(const uint8_t *p) { return little16(p) | (uint32_t)little16(p + 2) << 16; }
static void put16(uint8_t *p, unsigned v) { p[0] = v >> 8; p[1] = v; }
static void put32(uint8_t *p, uint32_t v) { put16(p, v >> 16); put16(p + 2, v & 0xFFFF); }

static _Noreturn void leave(struct association *a) {
    if (a->ssl) { SSL_shutdown(a->ssl); SSL_free(a->ssl); }
    close(a->socket);
    free(a);
    pthread_exit(NULL);
}

static _Noreturn void broken(struct association *a, const char *why) {
    static const uint8_t abort_pdu[10] = { 7, 0, 0, 0, 0, 4, 0, 0, 2, 0 };
    fprintf(stderr, "sink: the peer broke the protocol: %s\n", why);
    pthread_mutex_lock(&lock);
    total.broken++;
    pthread_mutex_unlock(&lock);
    if (a->ssl) SSL_write(a->ssl, abort_pdu, sizeof abort_pdu);
    else if (send(a->socket, abort_pdu, sizeof abort_pdu, MSG_NOSIGNAL) < 0) perror("sink: A-ABORT");
    leave(a);
}

static void put(struct association *a, const uint8_t *bytes, size_t length) {
    while (length) {
        ssize_t n = a->ssl ? SSL_write(a->ssl, bytes, length) : send(a->socket, bytes, length, MSG_NOSIGNAL);
        if (n <= 0) broken(a, "it does not take what it is sent");
        bytes += n;
        length -= n;
    }
}

static void put_answer(struct association *a, const struct answer *answer) {
    put(a, answer->bytes, answer->length);
    double at = now();
    pthread_mutex_lock(&lock);
    if (at > total.last_answer) total.last_answer = at;
    pthread_mutex_unlock(&lock);
}

/* Sends the answers that are due, and waits until there is something to read. */
static void wait_to_read(struct association *a) {
    struct pollfd readable = { a->socket, POLLIN, 0 };
    while (a->oldest != a->next) {
        struct answer *answer = &a->waiting[a->oldest % MOST_WAITING];
        double left = answer->due - now();
        if (left <= 0) {
            put_answer(a, answer);
            a->oldest++;
        } else {
            struct timespec t = { left, (left - (time_t)left) * 1e9 };
            if (ppoll(&readable, 1, &t, NULL) > 0) return;
        }
    }
}

/* Room for `length` bytes more, at most; 0 at the end of the stream. */
static size_t receive(struct association *a, void *where, size_t length) {
    if (delay > 0) wait_to_read(a);
    ssize_t n = a->ssl ? SSL_read(a->ssl, where, length) : recv(a->socket, where, length, 0);
    return n > 0 ? n : 0;
}

/* The next `length` bytes, which are at one place; NULL at the end of the stream if none of them has come. */
static const uint8_t *take(struct association *a, size_t length) {
    if (length > ROOM) broken(a, "an item is too long");
    if (a->begin + length > ROOM || a->begin == a->end) {
        memmove(a->room, a->room + a->begin, a->end - a->begin);
        a->end -= a->begin;
        a->begin = 0;
    }
    while (a->end - a->begin < length) {
        size_t n = receive(a, a->room + a->end, ROOM - a->end);
        if (!n && a->begin == a->end) return NULL;
        if (!n) broken(a, "the stream ends in the middle");
        a->end += n;
    }
    a->begin += length;
    return a->room + a->begin - length;
}

static const uint8_t *need(struct association *a, size_t length) {
    const uint8_t *bytes = take(a, length);
    if (!bytes) broken(a, "the stream ends in the middle");
    return bytes;
}

static void throw_away(struct association *a, uint64_t length) {
    while (length) {
        size_t n = a->end - a->begin;
        if (!n) {
            a->begin = 0;
            a->end = n = receive(a, a->room, ROOM);
            if (!n) broken(a, "the stream ends in a data set");
        }
        if (n > length) n = length;
        a->begin += n;
        length -= n;
    }
}

/* --- the association ----------------------------------------------------------------------------------------------- */

static uint8_t *put_item(uint8_t *p, unsigned type, const void *value, unsigned length) {
    p[0] = type;
    p[1] = 0;
    put16(p + 2, length);
    memcpy(p + 4, value, length);
    return p + 4 + length;
}

/* Accepts the first transfer syntax of a context. */
static uint8_t *put_context(struct association *a, uint8_t *out, const uint8_t *item, unsigned length) {
    const uint8_t *end = item + length, *syntax = NULL;
    int has_abstract = 0;
    if (length < 4 || !(item[0] & 1) || a->accepted[item[0]]) broken(a, "a presentation context ID");
    for (const uint8_t *p = item + 4; p < end; p += 4 + big16(p + 2)) {
        if (p + 4 > end || p + 4 + big16(p + 2) > end) broken(a, "an item is longer than its context");
        if (p[0] == 0x30) has_abstract = 1;
        if (p[0] == 0x40 && !syntax) syntax = p;
    }
    if (!has_abstract || !syntax) broken(a, "a presentation context without its syntaxes");
    a->accepted[item[0]] = 1;
    uint8_t value[4 + 4 + 64] = { item[0] };
    if (big16(syntax + 2) > 64) broken(a, "a transfer syntax UID");
    memcpy(value + 4, syntax, 4 + big16(syntax + 2));
    return put_item(out, 0x21, value, 8 + big16(syntax + 2));
}

static void associate(struct association *a, uint32_t length) {
    static const char name[] = "1.2.840.10008.3.1.1.1", implementation[] = "2.25.173205080756887729352744634150587236694";
    if (length < 68 || length > ROOM / 4) broken(a, "the length of an A-ASSOCIATE-RQ");
    const uint8_t *request = need(a, length), *end = request + length;
    uint8_t *answer = calloc(1, length + 1024), *out = answer + 74, user[64], *u = user;
    if (!answer) die("no memory");
    if (!(big16(request) & 1)) broken(a, "its protocol version");
    memcpy(answer + 6, request, 68);
    out = put_item(out, 0x10, name, sizeof name - 1);
    put32(user, max_pdu);
    uint8_t limit[4];
    memcpy(limit, user, 4);
    u = put_item(u, 0x51, limit, 4);
    int has_name = 0, has_limit = 0;
    for (const uint8_t *p = request + 68; p < end; p += 4 + big16(p + 2)) {
        if (p + 4 > end || p + 4 + big16(p + 2) > end) broken(a, "an item is longer than its PDU");
        if (p[0] == 0x10) has_name = big16(p + 2) == sizeof name - 1 && !memcmp(p + 4, name, sizeof name - 1);
        if (p[0] == 0x20) out = put_context(a, out, p + 4, big16(p + 2));
        if (p[0] != 0x50) continue;
        for (const uint8_t *q = p + 4, *stop = q + big16(p + 2); q < stop; q += 4 + big16(q + 2)) {
            if (q + 4 > stop || q + 4 + big16(q + 2) > stop) broken(a, "a user item is longer than the others are");
            if (q[0] == 0x51) has_limit = big16(q + 2) == 4;
            if (q[0] == 0x53 && window >= 0 && big16(q + 2) == 4) {
                unsigned invoked = big16(q + 4);
                if (window && (!invoked || invoked > (unsigned)window)) invoked = window;
                uint8_t operations[4] = { invoked >> 8, invoked, 0, 1 };
                u = put_item(u, 0x53, operations, 4);
            }
        }
    }
    if (!has_name || !has_limit) broken(a, "an A-ASSOCIATE-RQ without its application context or maximum length");
    u = put_item(u, 0x52, implementation, sizeof implementation - 1);
    out = put_item(out, 0x50, user, u - user);
    answer[0] = 2;
    put32(answer + 2, out - answer - 6);
    put(a, answer, out - answer);
    free(answer);
}

/* --- messages ------------------------------------------------------------------------------------------------------ */

static uint8_t *put_element(uint8_t *p, unsigned element, const void *value, unsigned length) {
    memset(p, 0, 8);
    p[2] = element;
    p[3] = element >> 8;
    p[4] = length;
    memcpy(p + 8, value, length);
    return p + 8 + length;
}

static uint8_t *put_number(uint8_t *p, unsigned element, unsigned value) {
    return put_element(p, element, (uint8_t[]) { value, value >> 8 }, 2);
}

static uint8_t *put_uid(uint8_t *p, unsigned element, const char *uid) {
    char padded[66] = { 0 };
    strcpy(padded, uid);
    return put_element(p, element, padded, (strlen(uid) + 1) & ~1u);
}

static void answer(struct association *a) {
    struct answer *answer = &a->waiting[a->next % MOST_WAITING];
    uint8_t *command = answer->bytes + 12, *p = put_element(command, 0x0000, "\0\0\0\0", 4);
    p = put_uid(p, 0x0002, a->sop_class);
    p = put_number(p, 0x0100, a->field | 0x8000);
    p = put_number(p, 0x0120, a->message_id);
    p = put_number(p, 0x0800, NO_DATA_SET);
    p = put_number(p, 0x0900, 0x0000);
    if (a->field == C_STORE_RQ) p = put_uid(p, 0x1000, a->sop_instance);
    command[8] = p - command - 12;                       /* group length; it is below 256 */
    answer->length = p - answer->bytes;
    memcpy(answer->bytes, "\4\0", 2);
    put32(answer->bytes + 2, answer->length - 6);
    put32(answer->bytes + 6, answer->length - 10);
    answer->bytes[10] = a->context;
    answer->bytes[11] = COMMAND | LAST;
    if (delay > 0) {
        answer->due = now() + delay;
        a->next++;
        while (a->next - a->oldest == MOST_WAITING) wait_to_read(a);
    } else {
        put_answer(a, answer);
    }
}

static void copy_uid(struct association *a, char *to, const uint8_t *value, uint32_t length) {
    if (length > 64 || length & 1) broken(a, "a UID in a command set");
    memcpy(to, value, length);
    to[length] = 0;
    if (!strlen(to) || strspn(to, "0123456789.") != strlen(to)) broken(a, "a UID in a command set");
}

static void read_command(struct association *a) {
    const uint8_t *p = a->command, *end = p + a->command_length;
    uint32_t group_length = 0, data_set_type = 0x10000;
    int before = -1, has_id = 0;
    a->field = 0x10000;
    a->sop_class[0] = a->sop_instance[0] = 0;
    while (p < end) {
        if (end - p < 8 || little16(p) || (int)little16(p + 2) <= before) broken(a, "an element of a command set");
        uint32_t length = little32(p + 4);
        before = little16(p + 2);
        p += 8;
        if (length > end - p) broken(a, "an element is longer than its command set");
        switch (before) {
        case 0x0000: group_length = length == 4 ? little32(p) : 0; break;
        case 0x0002: copy_uid(a, a->sop_class, p, length); break;
        case 0x0100: a->field = length == 2 ? little16(p) : 0x10000; break;
        case 0x0110: a->message_id = length == 2 ? little16(p) : 0; has_id = length == 2; break;
        case 0x0800: data_set_type = length == 2 ? little16(p) : 0x10000; break;
        case 0x1000: copy_uid(a, a->sop_instance, p, length); break;
        }
        p += length;
    }
    if (group_length != a->command_length - 12) broken(a, "the group length of a command set");
    if (!a->sop_class[0] || !has_id || data_set_type > 0xFFFF) broken(a, "a command set without what it must have");
    a->expects_data_set = data_set_type != NO_DATA_SET;
    if (a->field == C_STORE_RQ ? !a->expects_data_set || !a->sop_instance[0] : a->field != C_ECHO_RQ)
        broken(a, "neither a C-STORE-RQ with a data set nor a C-ECHO-RQ");
    a->data_set = 0;
    a->command_length = 0;
    if (a->expects_data_set) return;
    answer(a);
    a->context = 0;
}

static void end_data_set(struct association *a) {
    if (!a->data_set || a->data_set & 1) broken(a, "a data set of no or of odd length");
    pthread_mutex_lock(&lock);
    total.objects++;
    total.bytes += a->data_set;
    pthread_mutex_unlock(&lock);
    answer(a);
    a->context = a->expects_data_set = 0;
}

static void p_data(struct association *a, uint32_t length) {
    if (max_pdu && length > max_pdu) broken(a, "a PDU above the maximum length");
    if (length < 6) broken(a, "a P-DATA-TF without a PDV");
    while (length) {
        if (length < 6) broken(a, "a PDV without its header");
        const uint8_t *header = need(a, 6);
        uint32_t size = big32(header);
        unsigned context = header[4], control = header[5];
        if (size < 2 || size > length - 4) broken(a, "a PDV is longer than its PDU");
        if (control > 3 || !a->accepted[context]) broken(a, "the message control header or the context of a PDV");
        if (a->context && a->context != (int)context) broken(a, "a message in two contexts");
        if ((control & COMMAND) == (unsigned)a->expects_data_set) broken(a, "a fragment out of its turn");
        a->context = context;
        a->has_carried = 1;
        length -= 4 + size;
        size -= 2;
        if (control & COMMAND) {
            if (size > COMMAND_ROOM - a->command_length) broken(a, "a command set is too long");
            memcpy(a->command + a->command_length, need(a, size), size);
            a->command_length += size;
            if (control & LAST) read_command(a);
        } else {
            throw_away(a, size);
            a->data_set += size;
            if (control & LAST) end_data_set(a);
        }
    }
}

static void *serve(void *argument) {
    static const uint8_t released[10] = { 6, 0, 0, 0, 0, 4 };
    struct association *a = argument;
    if (tls) {
        a->ssl = SSL_new(tls);
        SSL_set_fd(a->ssl, a->socket);
        if (SSL_accept(a->ssl) != 1) broken(a, "the TLS handshake");
    }
    const uint8_t *header;
    int is_open = 0;
    while ((header = take(a, 6))) {
        unsigned type = header[0];
        uint32_t length = big32(header + 2);
        if (type == 1 && !is_open) {
            pthread_mutex_lock(&lock);
            if (!total.associations++) total.first_byte = now();
            if (a->ssl) snprintf(total.cipher, sizeof total.cipher, "%s %s", SSL_get_version(a->ssl),
                                 SSL_CIPHER_get_name(SSL_get_current_cipher(a->ssl)));
            pthread_mutex_unlock(&lock);
            associate(a, length);
            is_open = 1;
        } else if (type == 4 && is_open) {
            p_data(a, length);
        } else if (type == 5 && is_open && length == 4) {
            need(a, 4);
            if (a->context || a->oldest != a->next) broken(a, "a release in the middle");
            put(a, released, sizeof released);
            take(a, 1);                                  /* the peer closes */
            leave(a);
        } else if (type == 7 && is_open && !a->has_carried) {
            leave(a);                                    /* it was not needed in the end */
        } else {
            broken(a, type == 7 ? "it aborted" : "a PDU out of its turn");
        }
    }
    if (!is_open) leave(a);                              /* nor was this connection */
    broken(a, "the stream ends without a release");
}

static void *accept_all(void *argument) {
    for (int listener = *(int *)argument, on = 1;;) {
        struct association *a = calloc(1, sizeof *a);
        pthread_t thread;
        if (!a || (a->socket = accept(listener, NULL, NULL)) < 0) die("accept");
        setsockopt(a->socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        if (pthread_create(&thread, NULL, serve, a)) die("thread");
        pthread_detach(thread);
    }
}

int main(int argc, char **argv) {
    for (int option; (option = getopt(argc, argv, "p:d:w:t:")) != -1;) switch (option) {
        case 'p': max_pdu = strtoul(optarg, NULL, 10); break;
        case 'd': delay = atof(optarg) / 1000; break;
        case 'w': window = atoi(optarg); break;
        case 't': open_tls(optarg); break;
        default: die("usage: sink [-p BYTES] [-d MILLISECONDS] [-w OPERATIONS] [-t PEM]");
    }
    sigset_t end;
    sigemptyset(&end);
    sigaddset(&end, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &end, NULL);              /* of all threads; this one waits for it */
    signal(SIGPIPE, SIG_IGN);
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0), received;
    if (listener < 0 || bind(listener, (void *)&address, size) || listen(listener, 64)
        || getsockname(listener, (void *)&address, &size)) die(strerror(errno));
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    pthread_t thread;
    if (pthread_create(&thread, NULL, accept_all, &listener)) die("thread");
    sigwait(&end, &received);
    pthread_mutex_lock(&lock);
    printf("{\"objects\": %llu, \"bytes\": %llu, \"associations\": %llu, \"broken\": %llu, "
           "\"first_byte\": %.6f, \"last_answer\": %.6f, \"cipher\": \"%s\"}\n",
           (unsigned long long)total.objects, (unsigned long long)total.bytes, (unsigned long long)total.associations,
           (unsigned long long)total.broken, total.first_byte, total.last_answer, total.cipher);
    return 0;
}
