"""What chatd's speed is measured by: `python -m benchmarks` runs it all in one sitting and writes RESULTS.md.

    __main__   the command
    sitting    one run of the suite: how much of it, on which cores, and what was found
    machine    what the operating system says: cores, versions, CPU time and memory of a process
    programs   the C programs, compiled when they are needed: the floor and the load
    load       the load's commands as methods
    server     what is measured: chatd with its store, the floor, and peers
    peers      other people's servers, written as their documentation has it and installed from the registries
    figures    one figure a file: what is measured, how, and what it should reach
    reasons    why what falls short does
    report     the table in Markdown and JSON; chart: its plots in SVG

A figure is CPU time of the server process as the kernel counts it, so a slow load or a busy neighbour cannot flatter
it. Every figure is a ratio to the floor in the same run, or has it beside it. Every message is checked to have arrived
at every reader, in order; a run in which one did not is no figure but an error.
"""
