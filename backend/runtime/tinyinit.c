/* The first process of a container that was asked for with --init: starts the program, passes signals on to it,
 * collects orphans, ends as the program ends. In C and not in Python because it stays: a fork of the keeper would keep
 * a copy of the keeper's memory inside the container for as long as that runs.
 *
 *   slipway-init TTY SYNC PROGRAM NAME ARGUMENTS... TTY: "1" = standard input is the terminal to control
 *                                                   SYNC: a socket; closed when the program runs, an error otherwise
 *
 * No library, no allocation, no input but its arguments. backend/runtime/tinyinit.py holds it compiled; made with
 *   gcc -Os -static -nostdlib -ffreestanding -fno-stack-protector -fno-asynchronous-unwind-tables -fno-pic -no-pie \
 *       -fcf-protection=none -Wl,-z,noseparate-code -Wl,-z,max-page-size=4096 -Wl,--build-id=none -Wl,-n -s
 */
typedef unsigned long word;

#if defined(__x86_64__)
enum { N_WRITE = 1, N_CLOSE = 3, N_SIGPROCMASK = 14, N_IOCTL = 16, N_GETPID = 39, N_CLONE = 56, N_EXECVE = 59,
       N_EXIT = 231, N_WAIT4 = 61, N_KILL = 62, N_FCNTL = 72, N_SETSID = 112, N_SIGTIMEDWAIT = 128, N_PRCTL = 157 };
static long call(long n, word a, word b, word c, word d) {
    long result;
    register word r10 __asm__("r10") = d;
    register word r8 __asm__("r8") = 0;
    __asm__ volatile("syscall" : "=a"(result) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
    return result;
}
__asm__(".globl _start\n_start:\n xor %ebp,%ebp\n mov %rsp,%rdi\n and $-16,%rsp\n call begin\n");
#elif defined(__aarch64__)
enum { N_WRITE = 64, N_CLOSE = 57, N_SIGPROCMASK = 135, N_IOCTL = 29, N_GETPID = 172, N_CLONE = 220, N_EXECVE = 221,
       N_EXIT = 94, N_WAIT4 = 260, N_KILL = 129, N_FCNTL = 25, N_SETSID = 157, N_SIGTIMEDWAIT = 137, N_PRCTL = 167 };
static long call(long n, word a, word b, word c, word d) {
    register word x8 __asm__("x8") = n;
    register word x0 __asm__("x0") = a;
    register word x1 __asm__("x1") = b;
    register word x2 __asm__("x2") = c;
    register word x3 __asm__("x3") = d;
    register word x4 __asm__("x4") = 0;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
    return x0;
}
__asm__(".globl _start\n_start:\n mov x29, #0\n mov x0, sp\n bl begin\n");
#else
#error "this machine is not known"
#endif

enum { CHLD = 17, BLOCK_ALL = 2, NOHANG = 1, TIOCSCTTY = 0x540E, F_SETFD = 2, PR_SET_NAME = 15, ENOENT = 2, ENOEXEC = 8,
       EACCES = 13, ECHILD = 10 };
#define TEXT(s) s, sizeof(s) - 1

/* All signals but those that a fault of our own raises: QUIT..: ILL 4, TRAP 5, ABRT 6, BUS 7, FPE 8, SEGV 11. */
static const word everything = ~(1UL << 3 | 1UL << 4 | 1UL << 5 | 1UL << 6 | 1UL << 7 | 1UL << 10);
static const word nothing = 0;

static void tell(int sync, const char *text, word length) { call(N_WRITE, sync, (word)text, length, 0); }

static void become(int tty, int sync, const char *program, char **argv, char **envp) {
    long error;
    call(N_SIGPROCMASK, BLOCK_ALL, (word)&nothing, 0, 8);
    call(N_SETSID, 0, 0, 0, 0);
    if (tty)
        call(N_IOCTL, 0, TIOCSCTTY, 0, 0);
    call(N_FCNTL, sync, F_SETFD, 1, 0);
    error = -call(N_EXECVE, (word)program, (word)argv, (word)envp, 0);
    if (error == ENOENT)
        tell(sync, TEXT("{\"reason\":\"not_found\",\"errno\":2,\"message\":\"exec: no such file or directory\"}"));
    else if (error == ENOEXEC)
        tell(sync, TEXT("{\"reason\":\"not_permitted\",\"errno\":8,\"message\":\"exec: exec format error\"}"));
    else if (error == EACCES)
        tell(sync, TEXT("{\"reason\":\"not_permitted\",\"errno\":13,\"message\":\"exec: permission denied\"}"));
    else
        tell(sync, TEXT("{\"reason\":\"not_permitted\",\"errno\":null,\"message\":\"exec: the program cannot be run\"}"));
    call(N_EXIT, error == ENOENT ? 127 : 126, 0, 0, 0);
}

static void collect(long child) {
    for (;;) {
        int status = 0;
        long pid = call(N_WAIT4, -1UL, (word)&status, NOHANG, 0);
        if (pid == -ECHILD)
            call(N_EXIT, 0, 0, 0, 0);
        if (pid <= 0)
            return;
        if (pid == child)
            call(N_EXIT, status & 0x7f ? 128 + (status & 0x7f) : status >> 8 & 0xff, 0, 0, 0);
    }
}

static int number(const char *text) {
    int value = 0;
    while (*text)
        value = value * 10 + *text++ - '0';
    return value;
}

__attribute__((used, noreturn)) void begin(word *stack) {
    char **argv = (char **)(stack + 1), **envp = argv + stack[0] + 1;
    int tty = argv[1][0] == '1', sync = number(argv[2]), fd;
    long child;
    call(N_PRCTL, PR_SET_NAME, (word) "slipway:init", 0, 0);
    call(N_SIGPROCMASK, BLOCK_ALL, (word)&everything, 0, 8);
    child = call(N_CLONE, CHLD, 0, 0, 0);
    if (child == 0)
        become(tty, sync, argv[3], argv + 4, envp);
    call(N_CLOSE, sync, 0, 0, 0); /* the program's own copy tells when it has been executed */
    for (fd = 0; fd < 3; fd++)
        call(N_CLOSE, fd, 0, 0, 0); /* ends of pipes must not stay open because of us */
    if (child < 0)
        call(N_EXIT, 128, 0, 0, 0);
    for (;;) {
        long signal = call(N_SIGTIMEDWAIT, (word)&everything, 0, 0, 8);
        if (signal == CHLD)
            collect(child);
        else if (signal > 0)
            call(N_KILL, child, signal, 0, 0);
    }
}
