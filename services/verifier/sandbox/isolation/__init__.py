"""What runs on the far side of the sandbox: the zygote, its supervisors and the programs that nobody trusts.

Standard library only: `sandbox.py` starts `zygote.py` by exec, without the project's packages. From outside in:

    zygote.py       warm interpreter; forks a supervisor per program
    namespaces.py   what it gives up first: mounts, network, users, processes
    interpreter.py  how it reaches its own library after that
    supervisor.py   PID 1 of a program's own namespace; forks an untrusted process per test, and bounds it
    clock.py        what a process did with its time; scratch.py: the folder that it may write in
    confinement.py  what that process gives up before it sees the program: limits.py, landlock.py, seccomp.py
    untrusted.py    runs the program; libraries.py: what it may import besides
    forbidden.py    says why the kernel refuses something; semaphore.py: what need not be refused
"""
