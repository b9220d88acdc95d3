"""What a report shows: charts as inline SVG, and the grid of images.

Two kinds of modules. Some draw and know nothing of runs: `svg`, `scale`, `label_layout`,
`scatter_svg`, `line_svg`, `heatmap_svg`, `png`. The others choose what is drawn, from the view of a
run, and call them: `scatters`, `curves`, `heatmaps`, `image_grid`. Not here: words and key metrics
(`view`), colours (`static/report.css`).

May import `view`, `formatting` and the host's types and run folders; not `renderer`.
"""
