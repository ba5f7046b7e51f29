"""Everything worth knowing about a new machine, in a given time: stages, most valuable first, and one page at the end.

``conductor`` runs the stages that ``stages`` lists, each a process of its own with a deadline out of what is left;
``work`` says what each of them does, ``page`` what is told at the end, and ``bundle`` packs what a machine without a
network needs.
"""
