"""What runs on the far side of the sandbox: the zygote, its supervisors and the programs that nobody trusts.

Standard library only: `sandbox.py` starts `zygote.py` by exec, without the project's packages. From outside in:

    zygote.py       warm interpreter; forks a supervisor per program
    namespaces.py   what it gives up first: mounts, network, users, processes
    supervisor.py   PID 1 of a program's own namespace; forks an untrusted process per test, feeds and bounds it
    confinement.py  what that process gives up before it sees the program: limits.py, landlock.py, seccomp.py
    untrusted.py    runs the program
"""
