"""What steering buys on real models: tasks with an accuracy, and the capture of real inputs (extra ``models``)."""
