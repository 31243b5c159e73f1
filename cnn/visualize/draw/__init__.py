"""One picture a file: what an array of `compute` looks like.

A module has `draw_run(subject, run, folder)`, which is called for each run that takes
the images, or `draw(subject, folder)`. Both write their files into the folder, return
the pictures, and note what cannot be drawn or raise UserError, which becomes a note.
The first line of the module's docstring is the title of its section.
"""
