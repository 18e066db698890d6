from services.validate.app import main

main()
