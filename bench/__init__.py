"""How fast is it? One module per question, each comparing isolates with what else can do the same work.

    __main__                the command line
    echo, startup, pool ... the questions: who is measured, how, and how the answer is drawn
        _report  _targets       the page: tables, what was aimed at, what bounds it
        _plots                  pictures
        _harness                measuring, each opponent in a fresh process of its own, in turn
        _opponents  _channels   pools; something that sends and something that receives
        _work  _hello           what the workers do
        _figures                medians, spreads, ratios

A question's module is imported by each process that measures, so it imports what only one opponent needs inside that
opponent's function, and what only the report needs inside the plot.
"""
