from shared.embeddings.server import main

main()
