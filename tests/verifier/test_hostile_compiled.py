"""C++ that attacks the compiler, and compiled programs that attack the rest. Tier A only."""

import pytest

from services.verifier.programs.code_tests import Language
from services.verifier.programs.compiler import CompileFailure
from tests.verifier.judge import AC, CE, ILE, MLE, QUICK, RE, SE, TLE, WA, Case, Judge, names

pytestmark = pytest.mark.asyncio(loop_scope="session")

_MAIN = '\n#include <cstdio>\nint main() { puts("8"); }\n'

SOURCES = [
    Case(row=58, tries="includes the machine's files", program='#include "/etc/passwd"' + _MAIN, verdict=CE),
    Case(row=58, tries="includes an endless device", program='#include "/dev/urandom"' + _MAIN, verdict=CE),
    Case(row=58, tries="includes nothing", program='#include "/dev/null"\n#include "/proc/self/environ"', verdict=CE),
    *(
        Case(row=58, tries=f"includes {path}", program=f'#include "{path}"' + _MAIN, verdict=CE)
        for path in (
            "/usr/lib/os-release",
            "/usr/share/zoneinfo/UTC",
            "/etc/os-release",
            "/usr/share/common-licenses/BSD",
        )
    ),
    *(
        Case(
            row=58,
            tries=f"takes in {path}",
            program=f'asm(".section .rodata\\nx: .incbin \\"{path}\\"");' + _MAIN,
            verdict=CE,
        )
        for path in ("/usr/lib/os-release", "/usr/bin/env", "/usr/bin/passwd", "/bin/sh", "/usr/sbin/nologin")
    ),
    Case(
        row=58,
        tries="asks whether a file is there",
        program='#if __has_include("/usr/lib/os-release")\nint main() {}\n#else\n#error\n#endif',
        verdict=CE,
    ),
    Case(row=58, tries="includes itself", program='#include "solution.cpp"' + _MAIN, verdict=CE),
    Case(
        row=58,
        tries="unfolds templates",
        program="template <int N> struct A { static const int v = A<N - 1>::v + A<N - 2>::v; };\n"
        "int main() { return A<100000>::v; }",
        verdict=CE,
    ),
    Case(
        row=58,
        tries="unfolds types",
        program="template <class T> struct A { A<A<T>*>* p; static const int v = A<A<T>*>::v; };\n"
        "int main() { return A<int>::v; }",
        verdict=CE,
    ),
    Case(
        row=58,
        tries="unfolds macros",
        program="#define A0(x) x x x x x x x x x x x x x x x x\n"
        + "".join(f"#define A{i}(x) A{i - 1}(A{i - 1}(x))\n" for i in range(1, 6))
        + "int a[] = { A5(1,) };"
        + _MAIN,
        verdict=CE,
    ),
    Case(
        row=58,
        tries="loads a plug-in",
        program='#pragma GCC optimize("-fplugin=/tmp/x.so")\n#pragma GCC plugin "/tmp/x.so"' + _MAIN.replace("8", "9"),
        verdict=(CE, WA),
    ),
    Case(row=58, tries="takes in a file", program='asm(".incbin \\"/etc/passwd\\"");' + _MAIN, verdict=CE),
    Case(row=58, tries="takes in a device", program='asm(".incbin \\"/dev/urandom\\"");' + _MAIN, verdict=CE),
    Case(row=58, tries="is no program", program="int main( {", verdict=CE),
    Case(row=58, tries="leaves something out", program="int missing(); int main() { return missing(); }", verdict=CE),
    Case(row=58, tries="is very large", program="volatile char a[1ull << 32] = {1};" + _MAIN, verdict=CE),
    Case(
        row=58,
        tries="takes all memory before it starts",
        program='#include <cstdio>\nchar a[2000u << 20];\nint main() { puts("8"); return a[getchar()]; }',
        verdict=(RE, MLE),
    ),
]

PROGRAMS = [
    Case(
        row=59,
        tries="leaves before main",
        program="#include <cstdlib>\nstruct A { A() { exit(0); } } a;" + _MAIN,
        verdict=WA,
    ),
    Case(
        row=59,
        tries="becomes another program",
        program='#include <unistd.h>\nint main() { execlp("echo", "echo", "8", nullptr);'
        ' execl("/bin/echo", "echo", "8", nullptr); }',
        verdict=WA,
    ),
    Case(
        row=59,
        tries="calls the kernel itself",
        program="#include <cstdio>\nlong call(long n, long a, long b, long c) { long r;\n"
        'asm volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory"); return r; }\n'
        "int main() { long numbers[] = {57, 58, 41, 53, 101, 165, 272, 319, 321, 425, 29, 62, 200};\n"
        'for (long n : numbers) if (call(n, n == 62 ? 1 : 1, 1, 0) >= 0) puts("8"); }',
        verdict=WA,
    ),
    Case(
        row=59,
        tries="writes its own code",
        program="#include <cstdio>\n#include <cstring>\n#include <sys/mman.h>\nint main() {\n"
        "void* p = mmap(nullptr, 4096, 7, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);\n"
        'memcpy(p, "\\xb8\\x39\\0\\0\\0\\x0f\\x05\\xc3", 8);\n'
        'if (((int (*)())p)() >= 0) puts("8"); }',
        verdict=WA,
    ),
    Case(
        row=59,
        tries="opens and executes again",
        program="#include <cstdio>\n#include <unistd.h>\n#include <fcntl.h>\n#include <sys/syscall.h>\n"
        'int main() { int d = open("/bin/echo", O_RDONLY); if (d >= 0) puts("8"); dup2(0, 9); char* a[] = {nullptr};\n'
        'for (int i = 0; i < 64; i++) if (syscall(SYS_execveat, i, "", a, a, 0x1000) == 0) puts("8"); }',
        verdict=WA,
    ),
    Case(
        row=59,
        tries="calls the x32 kernel",
        program="#include <unistd.h>\n#include <sys/syscall.h>\nint main() { syscall(0x40000000 + 39); }" + "",
        verdict=SE,
    ),
    Case(
        row=16, tries="loops", program="int main() { for (volatile int i = 0;; i = i + 1); }", verdict=TLE, tests=QUICK
    ),
    Case(row=19, tries="sleeps", program="#include <unistd.h>\nint main() { sleep(1000); }", verdict=ILE, tests=QUICK),
    Case(
        row=27,
        tries="takes memory",
        program="#include <vector>\nint main() { std::vector<char> a(1u << 31, 1); return a[5]; }",
        verdict=MLE,
    ),
    Case(
        row=27,
        tries="takes more memory than its limit",
        program="#include <vector>\nint main() { std::vector<char> a(700u << 20, 1); return a[5] - 1; }",
        verdict=MLE,
    ),
    Case(
        row=41,
        tries="overflows its stack",
        program="int f(volatile int* a) { volatile int b[100] = {*a}; return f((volatile int*)b) + b[0]; }\n"
        "int main() { volatile int a = 1; return f(&a); }",
        verdict=RE,
        tests={"cpu_seconds": 20},
    ),
    Case(row=41, tries="reads a null pointer", program="int main() { return *(volatile int*)0; }", verdict=RE),
    Case(row=3, tries="prints and fails", program='#include <cstdio>\nint main() { puts("8"); return 1; }', verdict=RE),
    Case(
        row=23,
        tries="starts threads without end",
        program="#include <thread>\n#include <cstdio>\n#include <unistd.h>\n"
        'int main() { for (int i = 0; i < 3000; i++) std::thread([] { pause(); }).detach(); puts("8"); }',
        verdict=RE,
    ),
    Case(
        row=33,
        tries="reads and writes files",
        program="#include <cstdio>\n#include <initializer_list>\nint main() { "
        'for (const char* p : {"/etc/passwd", "/usr/bin/g++", "/lib", "/dev/zero"})\n'
        '  if (fopen(p, "r")) puts("8");\n  for (const char* p : {"/tmp/prime-escape", "/dev/shm/prime-escape", "x"})\n'
        '  if (fopen(p, "w")) puts("8"); }',
        verdict=WA,
    ),
]


@pytest.mark.parametrize("case", SOURCES, ids=names(SOURCES))
async def test_the_compiler_is_held_and_tells_nothing(judge_a: Judge, case: Case) -> None:
    found = await judge_a.grade(case.program, language="cpp")
    assert found.tests[0].verdict in case.allowed, found
    assert found.reason.endswith(":0")
    await judge_a.is_as_before()


async def test_messages_of_the_compiler_hold_nothing_of_the_machine(judge_a: Judge) -> None:
    with pytest.raises(CompileFailure) as caught:
        await judge_a.compiler.compile(Language.CPP, b'#include "/etc/passwd"\n#include "/proc/self/environ"\n')
    assert "root:" not in str(caught.value)
    assert "No such file" in str(caught.value)


@pytest.mark.parametrize("case", PROGRAMS, ids=names(PROGRAMS))
async def test_a_compiled_program_is_held(judge_a: Judge, case: Case) -> None:
    case = Case(**{**{name: getattr(case, name) for name in case.__slots__}, "language": "cpp"})
    await judge_a.expect(case)


HONEST = {
    "reads with iostream": "#include <iostream>\nint main() { long a, b; "
    "std::cin >> a >> b; std::cout << a + b << std::endl; }",
    "reads with scanf": '#include <cstdio>\nint main() { int a, b; scanf("%d %d", &a, &b); printf("%d", a + b); }',
    "includes everything": "#include <bits/stdc++.h>\nusing namespace std;\n"
    "int main() { ios::sync_with_stdio(false); cin.tie(nullptr); int a, b; cin >> a >> b; cout << a + b << '\\n'; }",
    "recurses a million deep": "#include <cstdio>\nint f(int n) { volatile int a = n; return a == 0 ? 8 : f(a - 1); }\n"
    'int main() { printf("%d", f(1000000)); }',
    "starts threads": "#include <thread>\n#include <atomic>\n#include <cstdio>\nint main() { std::atomic<int> n{0};\n"
    'std::thread a([&] { n += 3; }), b([&] { n += 5; }); a.join(); b.join(); printf("%d", n.load()); }',
    "throws and catches": '#include <cstdio>\nint main() { try { throw 8; } catch (int n) { printf("%d", n); } }',
    "leaves by exit": '#include <cstdio>\n#include <cstdlib>\nint main() { puts("8"); exit(0); }',
    "holds a large array": '#include <cstdio>\nint a[1 << 25];\nint main() { a[5] = 8; printf("%d", a[5]); }',
}


@pytest.mark.parametrize("name", HONEST)
async def test_an_honest_compiled_program_passes(judge_a: Judge, name: str) -> None:
    found = await judge_a.grade(HONEST[name], language="cpp")
    assert (found.score, found.reason) == (1.0, "all_tests")


async def test_a_compiled_program_reads_a_million_lines(judge_a: Judge) -> None:
    source = "#include <iostream>\n#include <string>\n"
    source += "int main() { std::ios::sync_with_stdio(false); std::string s; int n = 0;\n"
    source += "while (std::getline(std::cin, s)) n++; std::cout << n; }"
    found = await judge_a.grade(source, {"inputs": ["12345\n" * 10**6], "outputs": ["1000000"]}, language="cpp")
    assert found.tests[0].verdict is AC


async def test_a_compiled_program_is_compiled_once(judge_a: Judge) -> None:
    source = b"int main() { return 0; }"
    first = await judge_a.compiler.compile(Language.CPP, source)
    assert (await judge_a.compiler.compile(Language.CPP, source)).content is first.content
