"""How a corpus is built: files become parts, parts become per-cell arrays and shards.

============== =====================================================================
module         what it does
============== =====================================================================
`source`       what is said about a file, and how it is read without loading it
`quality`      which cells of a file are kept, and why the others are not
`counts`       counts in the order of ranked tokens
`parts`        one file → ranked cells that passed quality control, in a folder
`duplicates`   cells of all parts that were met before
`medians`      median count of each gene, by a histogram that can be merged
`cells`        arrays with one entry per cell, and where shards begin
`shards`       the tokens (and counts) of the cells that stay, in files of equal size
`plan`         what is to be built, and where its intermediate results lie
`claims`       how several processes share the work
`arrays`       arrays that grow on disk
============== =====================================================================
"""
